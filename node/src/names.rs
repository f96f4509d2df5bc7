//! What a room or a participant may be called. The pages write names as text, never as markup; a name that could
//! still mislead somewhere else (markup, direction overrides, invisible characters, paths) is refused here.

use crate::http::problem::Problem;

/// Characters of a room's or participant's name: enough for people, too short for an essay in a tile.
pub(crate) const NAME_LENGTH_MAX: usize = 64;

fn allowed(character: char) -> bool {
    let misleads = matches!(character,
        '<' | '>' | '&' | '"' | '`' | '\\' | '/' | '%' | '?' | '#'
        | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{feff}' | '\u{fff9}'..='\u{ffff}' | '\u{e0000}'..='\u{e007f}');
    !character.is_control() && !misleads
}

/// Checks a name that came from outside; `what` is "room" or "name".
pub(crate) fn check(what: &str, name: &str) -> Result<(), Problem> {
    let length = name.chars().count();
    let good = (1..=NAME_LENGTH_MAX).contains(&length)
        && name.trim() == name
        && name != "."
        && name != ".."
        && name.chars().all(allowed);
    if good {
        return Ok(());
    }
    Err(Problem::new(
        "bad-name",
        format!(
            "The {what} is not usable: take 1 to {NAME_LENGTH_MAX} letters, digits, spaces and marks, without < > & \" ` \\ / \
             % ? # and invisible characters."
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_of_all_scripts_have_names() {
        for name in ["Zoë", "José Ángel", "李雷", "O'Neil", "family 👩‍👧", "x"] {
            assert!(check("name", name).is_ok(), "{name}");
        }
    }

    #[test]
    fn markup_paths_and_invisible_tricks_are_refused() {
        let long = "x".repeat(65);
        for name in [
            "",
            " x",
            "<img src=x>",
            "a/b",
            "..",
            "a\u{202e}b",
            "a\nb",
            "a\0",
            "\u{200b}",
            "%2e",
            long.as_str(),
        ] {
            assert_eq!(check("name", name).unwrap_err().slug(), "bad-name", "{name:?}");
        }
    }
}
