use identity::policy::Kind;
use identity::{Did, SigningKey};

use super::*;

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    fn new(policy: &str) -> Files {
        let files = Files {
            folder: tempfile::tempdir().unwrap(),
        };
        files.write(policy);
        files
    }

    fn write(&self, policy: &str) {
        std::fs::write(self.folder.path().join("policy.toml"), policy).unwrap();
    }

    fn open(&self) -> Result<Policies, Vec<Mistake>> {
        let mut config = Config::default();
        config.policy.file = self.folder.path().join("policy.toml").display().to_string();
        let base = TokenPolicy::new(key(2).did().clone(), vec![key(1).did().clone()]);
        Policies::open(&config, base, DenyList::default())
    }
}

/// The whole file, as docs/identity.md has it.
const WHOLE: &str = r#"
[issuers."did:web:issuer.example"]
voucher_max_msat = 1_000_000
day_max_msat = 50_000_000
holder_day_max_msat = 5_000_000
promotional = true

[credentials."did:web:trustgraph.example"]
types = ["ReputationScore", "Role", "Organization"]
credit_max_msat = 10_000_000
allowance_day_max_msat = 1_000_000

[sfu]
reputation_min = 300

[turn]
roles = ["support"]
organizations = ["did:web:voice.example"]

[[credit]]
score = 500
msat = 10_000

[allowance]
msat_per_day = 5_000
score_min = 400

[emergency]
dids = ["did:web:911.example"]

[deny]
sub = ["did:key:z6MkDenied"]

[allow]
sub = ["did:web:friend.example"]

[[lists]]
did = "did:web:lists.example"
url = "https://lists.example/deny.jws"
refresh_seconds = 60

[rates]
admissions_per_minute = 30
"#;

#[test]
fn every_table_of_the_file_is_read() {
    let rules = Files::new(WHOLE).open().unwrap().rules();
    let did = |text: &str| Did::parse(text).unwrap();
    let issuer = &rules.policy.issuers[&did("did:web:issuer.example")];
    assert_eq!((issuer.voucher_max, issuer.promotional), (Some(1_000_000), true));
    let word = &rules.policy.credentials[&did("did:web:trustgraph.example")];
    assert!(word.score && word.role && word.organization);
    assert_eq!(rules.policy.sfu.score_min, Some(300));
    assert_eq!(rules.policy.turn.roles, ["support"]);
    assert_eq!(rules.policy.credit[0].msat, 10_000);
    assert_eq!(rules.policy.allowance.msat_per_day, 5_000);
    assert_eq!(
        (
            rules.denied.len(),
            rules.communities.len(),
            rules.admissions_per_minute
        ),
        (1, 1, 30)
    );
    let issuers: Vec<&str> = rules.token.issuers.iter().map(Did::as_str).collect();
    assert_eq!(
        issuers,
        [
            key(1).did().as_str(),
            "did:web:issuer.example",
            "did:web:911.example"
        ]
    );
    assert_eq!(
        rules.token.credential_issuers,
        [did("did:web:trustgraph.example")]
    );
}

#[test]
fn a_mistake_names_its_line() {
    for (text, line) in [
        ("[sfu]\nreputation_minimum = 3\n", 2),
        ("[sfu]\n\nreputation_min = \"high\"\n", 3),
        (
            "[issuers.\"did:web:a.example\"]\nvoucher_max_msat = 9_007_199_254_740_992\n",
            2,
        ),
        ("[issuers.\"did:web:a.example\"]\nday_max_msat = -1\n", 2),
        ("[deny]\nsub = [\"a b\"]\n", 2),
        (
            "[[lists]]\ndid = \"did:web:a.example\"\nurl = \"http://a.example/\"\n",
            3,
        ),
        (
            "[[lists]]\ndid = \"did:web:a.example\"\nfile = \"a\"\nrefresh_seconds = 0\n",
            4,
        ),
        ("[[lists]]\ndid = \"did:web:a.example\"\n", 1),
        ("[credentials.\"did:web:a.example\"]\ntypes = [\"Degree\"]\n", 2),
        ("[sfu]\n\nx = = 1\n", 3),
        ("\n[nonsense]\n", 2),
    ] {
        let mistakes = Files::new(text).open().err().unwrap();
        let place = &mistakes[0].place;
        assert!(
            place.ends_with(&format!("policy.toml:{line}")),
            "{text}: {} {}",
            place,
            mistakes[0].what
        );
    }
}

#[test]
fn a_reload_takes_the_new_policy_and_with_a_mistake_the_old_one_stays() {
    let files = Files::new("[sfu]\nreputation_min = 1\n");
    let policies = files.open().unwrap();
    let least = || policies.rules().policy.sfu.score_min;
    files.write("[sfu]\nreputation_min = 2\n");
    policies.reload().unwrap();
    assert_eq!(least(), Some(2));
    files.write("[sfu]\nreputation_min = \n");
    assert_eq!(policies.reload().unwrap_err().len(), 1);
    assert_eq!(least(), Some(2));
    std::fs::remove_file(files.folder.path().join("policy.toml")).unwrap();
    assert!(policies.reload().is_err());
    assert_eq!(least(), Some(2));
}

#[test]
fn what_communities_deny_outlives_a_reload() {
    let files = Files::new("");
    let policies = files.open().unwrap();
    let mut denied = DenyList::default();
    denied.add(Kind::Sub, "did:key:z6Mk").unwrap();
    assert!(policies.set_denied_by_others(denied.clone()));
    assert!(!policies.set_denied_by_others(denied.clone()), "that is no news");
    policies.reload().unwrap();
    assert_eq!(policies.rules().denied_by_others, denied);
}

#[test]
fn what_the_ledger_denies_stands_beside_what_the_file_denies_and_outlives_a_reload() {
    let files = Files::new("[deny]\njti = [\"a\"]\n");
    let policies = files.open().unwrap();
    let mut denied = DenyList::default();
    denied.add(Kind::Jti, "b").unwrap();
    assert!(policies.set_denied(denied.clone()) && !policies.set_denied(denied));
    assert_eq!(policies.rules().denied.len(), 2);
    files.write("[deny]\njti = [\"a\", \"c\"]\n");
    policies.reload().unwrap();
    assert_eq!(policies.rules().denied.len(), 3);
    assert!(policies.set_denied(DenyList::default()));
    assert_eq!(policies.rules().denied.len(), 2);
}

/// A resolver that reaches nothing.
fn offline() -> crate::resolver::Resolver {
    crate::resolver::Resolver::new(&Config::default().did).unwrap()
}

#[tokio::test]
async fn a_list_in_a_file_denies_until_it_expires_and_an_older_one_does_not_replace_it() {
    use identity::policy::sign_list;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("list.jws");
    let community = key(11);
    let text = format!(
        "[[lists]]\ndid = \"{}\"\nfile = \"{}\"\nrefresh_seconds = 1\n",
        community.did(),
        path.display()
    );
    let (rules, resolver, mut lists) = (
        Files::new(&text).open().unwrap().rules(),
        offline(),
        Lists::default(),
    );
    assert!(
        lists.refresh(&rules, &resolver, 1000).await.is_empty(),
        "no file yet"
    );
    let mut deny = DenyList::default();
    deny.add(Kind::Sub, "did:key:z6MkA").unwrap();
    deny.add(Kind::Sub, key(4).did().as_str()).unwrap();
    let write = |text: String| std::fs::write(&path, text).unwrap();
    write(sign_list(&community, &deny, &[key(4).did().clone()], 1000, 2000));
    assert_eq!(
        lists.refresh(&rules, &resolver, 1001).await.len(),
        1,
        "its own exception is honoured"
    );
    write(sign_list(&community, &DenyList::default(), &[], 999, 2000));
    assert_eq!(
        lists.refresh(&rules, &resolver, 1002).await.len(),
        1,
        "older: a replay"
    );
    write(sign_list(&key(12), &DenyList::default(), &[], 1003, 2000));
    assert_eq!(
        lists.refresh(&rules, &resolver, 1003).await.len(),
        1,
        "by somebody else"
    );
    assert!(lists.refresh(&rules, &resolver, 2000).await.is_empty(), "expired");
    let none = Files::new("").open().unwrap().rules();
    write(sign_list(&community, &deny, &[], 2000, 3000));
    assert_eq!(lists.refresh(&rules, &resolver, 2001).await.len(), 2);
    assert!(
        lists.refresh(&none, &resolver, 2002).await.is_empty(),
        "no longer listened to"
    );
}
