//! What the control plane knows, in the words of DSIP.

use dsip::Fault;
use dsip::message::{Balance, Participant, RelayChanges, Track};

use crate::cashier::Notice;
use crate::http::problem::Problem;
use crate::money;

/// Which line carries whom.
pub(super) fn tracks(tracks: Vec<sfu::room::Track>) -> RelayChanges {
    let said = tracks.into_iter().map(|track| Track {
        mid: track.mid.to_string(),
        kind: track.kind.as_str().to_owned(),
        name: track.name.to_string(),
    });
    RelayChanges {
        tracks: Some(said.collect()),
        ..RelayChanges::default()
    }
}

/// Who else is in the room.
pub(super) fn participants(list: Vec<sfu::room::Participant>) -> RelayChanges {
    let said = list.into_iter().map(|participant| Participant {
        name: participant.name.to_string(),
        audio: participant.audio,
        video: participant.video,
    });
    RelayChanges {
        participants: Some(said.collect()),
        ..RelayChanges::default()
    }
}

/// The account of a session.
pub(super) fn balance(notice: &Notice) -> Balance {
    Balance {
        available_msat: money::signed(notice.available_msat),
        runway_seconds: notice.runway_seconds,
        step: money::word(notice.step),
        burn_msat_per_second: notice.burn_msat_per_second as f64,
    }
}

/// A problem as a DSIP error (DSIP section 21.A): payment and policy have their prefix.
pub(super) fn fault(problem: &Problem) -> Fault {
    let slug = problem.slug();
    let reason = match slug {
        "balance-exhausted" => "payment:balance-exhausted",
        "account-frozen" => "payment:account-frozen",
        "tariff-unavailable" => "payment:tariff-unavailable",
        "voucher-conflict" => "payment:voucher-conflict",
        "reputation-too-low" => "policy:reputation-too-low",
        "room-forbidden" => "policy:room-forbidden",
        "service-forbidden" => "policy:service-forbidden",
        "name-taken" => "policy:name-taken",
        _ => slug,
    };
    Fault::new(problem.status().as_u16(), reason, problem.detail().to_owned())
}
