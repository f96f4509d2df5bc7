use super::*;

const EXAMPLE: &str = include_str!("../../../deploy/milliway.example.toml");

fn read(text: &str) -> Result<Config, Vec<Mistake>> {
    let mut config = Config::default();
    let mut mistakes = Vec::new();
    config.read("m.toml", text, &mut mistakes);
    config.check("m.toml".into(), &mut mistakes);
    if mistakes.is_empty() {
        Ok(config)
    } else {
        Err(mistakes)
    }
}

fn environment(pairs: &[(&str, &str)]) -> Result<Config, Vec<Mistake>> {
    Config::load(
        None,
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
    )
}

/// A text as comment lines of at most 110 columns.
fn comment(text: &str) -> String {
    let mut lines = vec![String::from("#")];
    for word in text.split_whitespace() {
        let line = lines.last_mut().unwrap();
        if line.len() + 1 + word.len() > 110 {
            lines.push(format!("# {word}"));
        } else {
            line.push(' ');
            line.push_str(word);
        }
    }
    lines.join("\n") + "\n"
}

/// The example file, as the table of keys says it should be.
fn example() -> String {
    let mut text = String::from(
        "# Every key of Milliway's configuration, with its default. All lines that set something are commented out:\n\
         # take the ones you want to change. Each key can also be set by an environment variable, which wins:\n\
         # MILLIWAY_HTTP__LISTEN=0.0.0.0:8080. `milliway check --config FILE` says every mistake with its line.\n",
    );
    let mut section = "";
    for key in Config::keys() {
        if key.section != section {
            section = key.section;
            text.push_str(&format!("\n{}[{section}]\n", comment(Config::about(section))));
        }
        text.push_str(&comment(key.meaning));
        text.push_str(&format!("# {} = {}\n", key.name, key.default));
    }
    text
}

#[test]
fn the_example_file_lists_every_key_with_its_default() {
    let expected = example();
    if std::env::var_os("MILLIWAY_WRITE_EXAMPLE").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/milliway.example.toml");
        std::fs::write(path, &expected).unwrap();
        return;
    }
    assert!(
        EXAMPLE == expected,
        "run: MILLIWAY_WRITE_EXAMPLE=1 cargo test -p milliway example_file"
    );
}

#[test]
fn every_default_of_the_example_is_accepted_when_uncommented() {
    let uncommented: Vec<&str> = EXAMPLE
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest) if rest.split_once(" = ").is_some_and(|(key, _)| !key.contains(' ')) => rest,
            _ => line,
        })
        .collect();
    let config = read(&uncommented.join("\n")).unwrap();
    assert_eq!(config.http.listen, Config::default().http.listen);
}

#[test]
fn an_unknown_key_is_an_error_that_names_its_line() {
    let mistakes = read("[http]\nlisten = \"127.0.0.1:1\"\nlisten_adress = 3\n").unwrap_err();
    assert_eq!(mistakes.len(), 1);
    assert_eq!(mistakes[0].place, "m.toml:3");
    assert!(mistakes[0].what.contains("public_url"), "{}", mistakes[0].what);
}

#[test]
fn every_mistake_is_said_at_once() {
    let text = "[http]\nlisten = 8080\n[sfu]\nadvertise = [\"here\"]\n[ladder]\nrise_percent = 50\n[sfoo]\n";
    let places: Vec<String> = read(text)
        .unwrap_err()
        .into_iter()
        .map(|mistake| mistake.place)
        .collect();
    assert_eq!(places, ["m.toml:2", "m.toml:4", "m.toml:6", "m.toml:7"]);
}

#[test]
fn a_syntax_error_names_its_line() {
    let mistakes = read("[http]\n\nlisten = = 3\n").unwrap_err();
    assert_eq!(mistakes[0].place, "m.toml:3");
}

#[test]
fn the_environment_wins_and_needs_no_quotes() {
    let config = environment(&[
        ("MILLIWAY_HTTP__LISTEN", "127.0.0.1:9"),
        ("MILLIWAY_TARIFF__SFU_MSAT_PER_SECOND", "1_000"),
        ("MILLIWAY_SFU__ADVERTISE", "[\"203.0.113.5\"]"),
        ("MILLIWAY_BIN", "/not/a/setting"),
    ])
    .unwrap();
    assert_eq!(config.http.listen, local(9));
    assert_eq!(config.tariff.sfu_msat_per_second, 1000);
    assert_eq!(config.sfu.advertise.len(), 1);
}

#[test]
fn an_environment_variable_out_of_range_is_told_the_range() {
    let mistakes = environment(&[("MILLIWAY_TURN__CREDENTIAL_TTL_SECONDS", "3")]).unwrap_err();
    assert_eq!(mistakes[0].what, "must be within 30..=86400");
}

#[test]
fn what_dev_turns_on_can_be_turned_off() {
    let off = [("MILLIWAY_AUTH__ALLOW_BEARER".to_owned(), "false".to_owned())];
    let config = Config::for_dev().with(None, off).unwrap();
    assert!(!config.auth.allow_bearer && config.turn.allow_loopback_peers);
}

#[test]
fn a_wrong_environment_variable_is_named() {
    let mistakes = environment(&[("MILLIWAY_HTTP__LISTEN", "here")]).unwrap_err();
    assert_eq!(mistakes[0].place, "MILLIWAY_HTTP__LISTEN");
}

#[test]
fn numbers_that_no_ledger_could_hold_are_refused() {
    assert!(read("[tariff]\nsfu_msat_per_second = 1_099_511_627_777\n").is_err());
    assert!(read("[tariff]\nsfu_msat_per_second = -1\n").is_err());
    assert!(read("[tariff]\nsfu_msat_per_second = 1.5\n").is_err());
}

#[test]
fn thresholds_out_of_order_are_refused() {
    assert!(read("[ladder]\nwarned_below_seconds = 30\n").is_err());
}
