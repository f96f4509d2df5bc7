//! The browser's side: the pages and modules of `web/`, embedded into the program.
//!
//! Only names that were embedded at build time exist, so no path can lead out of the folder.

use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use rust_embed::RustEmbed;

use super::problem::Problem;

#[derive(RustEmbed)]
#[folder = "../web"]
#[include = "*.html"]
#[include = "*.css"]
#[include = "*.js"]
#[include = "*.svg"]
#[include = "*.png"]
#[include = "lib/*.js"]
#[exclude = "node_modules/*"]
#[exclude = "tests/*"]
struct Web;

/// What a page may do: run and load what this relay serves, and show the camera.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
    connect-src 'self'; media-src 'self' blob:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// Headers of every response of the front door, pages or not.
pub(crate) const SECURITY_HEADERS: [(&str, &str); 4] = [
    ("content-security-policy", CONTENT_SECURITY_POLICY),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("permissions-policy", "camera=(self), microphone=(self)"),
];

fn media_type(name: &str) -> &'static str {
    match name.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        _ => "application/octet-stream",
    }
}

fn embedded(name: &str, request: &HeaderMap) -> Response {
    let Some(file) = Web::get(name) else {
        return Problem::new(
            "not-found",
            "No such page or file; the call page is at /room/NAME.",
        )
        .into_response();
    };
    let hash = file.metadata.sha256_hash();
    let tag: String = hash[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    let tag = format!("\"{tag}\"");
    // Always asked again, answered 304 when unchanged: a new relay never meets old modules.
    let headers = [
        (header::CONTENT_TYPE, media_type(name).to_owned()),
        (header::CACHE_CONTROL, "no-cache".to_owned()),
        (header::ETAG, tag.clone()),
    ];
    let known = request
        .get(header::IF_NONE_MATCH)
        .is_some_and(|known| known.as_bytes() == tag.as_bytes());
    if known {
        return (StatusCode::NOT_MODIFIED, headers).into_response();
    }
    (headers, file.data.into_owned()).into_response()
}

/// `GET /`
pub(crate) async fn index(headers: HeaderMap) -> Response {
    embedded("index.html", &headers)
}

/// `GET /room/{room}`
pub(crate) async fn room(headers: HeaderMap) -> Response {
    embedded("room.html", &headers)
}

/// `GET /static/{*path}`
pub(crate) async fn file(Path(path): Path<String>, headers: HeaderMap) -> Response {
    embedded(&path, &headers)
}

/// `GET /favicon.ico`, which browsers ask for unasked.
pub(crate) async fn icon(headers: HeaderMap) -> Response {
    embedded("icon.svg", &headers)
}

/// `GET /problems/{slug}`: what a problem's `type` leads to.
pub(crate) async fn problem(Path(slug): Path<String>) -> Response {
    match Problem::explain(&slug) {
        Some(text) => text.into_response(),
        None => Problem::new("not-found", "No problem of this relay has that slug.").into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_path_leads_out_of_the_folder() {
        for path in [
            "../Cargo.toml",
            "/etc/passwd",
            "lib/../../Cargo.toml",
            "package.json",
            "tests/e2e/call.test.mjs",
            "",
        ] {
            assert_eq!(embedded(path, &HeaderMap::new()).status(), 404, "{path}");
        }
    }

    #[test]
    fn nothing_of_node_modules_is_embedded() {
        assert!(Web::iter().all(|name| !name.contains("node_modules") && !name.contains("tests/")));
    }
}
