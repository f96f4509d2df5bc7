//! Janus' videoroom plugin over its HTTP API: one session of the API, a handle for every client, events by long poll.

use std::collections::HashMap;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Manner, Signalling, Wish};
use crate::Error;
use crate::http;
use crate::peer::Negotiated;
use crate::sdp::{Direction, Kind, Local, Remote, answer, offer};

/// How long Janus may take for an event.
const PATIENCE: Duration = Duration::from_secs(30);

/// Before a publisher that is not there yet is asked for again.
const FEED_INTERVAL: Duration = Duration::from_millis(50);

/// Janus ends a session that asked nothing for a minute.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);

/// A Janus server.
pub struct Janus {
    base: String,
    session: Option<u64>,
    heard: Instant,
    transactions: u64,
    /// Rooms by name: their number.
    rooms: HashMap<String, u64>,
    /// Publishers by room and name: their number.
    feeds: HashMap<(String, String), u64>,
}

impl Janus {
    /// At "http://host:port".
    #[must_use]
    pub fn new(base: &str) -> Janus {
        Janus {
            base: base.trim_end_matches('/').to_owned(),
            session: None,
            heard: Instant::now(),
            transactions: 0,
            rooms: HashMap::new(),
            feeds: HashMap::new(),
        }
    }

    fn post(&mut self, path: &str, mut body: Value) -> Result<Value, Error> {
        self.transactions += 1;
        body["transaction"] = json!(self.transactions.to_string());
        self.heard = Instant::now();
        let headers = [("content-type", "application/json")];
        let answer = http::call(&self.base, "POST", path, &headers, &body.to_string())?;
        let answer = answer.expect(200, path)?.json()?;
        if answer["janus"] == "error" {
            return Err(format!("Janus refused: {}", answer["error"]).into());
        }
        Ok(answer)
    }

    fn session(&mut self) -> Result<u64, Error> {
        if let Some(session) = self.session {
            return Ok(session);
        }
        let answer = self.post("/janus", json!({ "janus": "create" }))?;
        let session = answer["data"]["id"].as_u64().ok_or("Janus gave no session")?;
        self.session = Some(session);
        Ok(session)
    }

    /// A handle of the plugin: its path.
    fn attach(&mut self) -> Result<String, Error> {
        let session = self.session()?;
        let body = json!({ "janus": "attach", "plugin": "janus.plugin.videoroom" });
        let answer = self.post(&format!("/janus/{session}"), body)?;
        let handle = answer["data"]["id"].as_u64().ok_or("Janus gave no handle")?;
        Ok(format!("/janus/{session}/{handle}"))
    }

    /// A request to the plugin and the event that answers it.
    fn request(&mut self, handle: &str, body: Value, jsep: Option<Value>) -> Result<Value, Error> {
        let mut message = json!({ "janus": "message", "body": body });
        if let Some(jsep) = jsep {
            message["jsep"] = jsep;
        }
        let mut answer = self.post(handle, message)?;
        let transaction = self.transactions.to_string();
        let session = self.session()?;
        let end = Instant::now() + PATIENCE;
        while answer["janus"] == "ack" || answer["transaction"] != transaction.as_str() {
            if Instant::now() > end {
                return Err("Janus did not answer in time".into());
            }
            // Others' events (webrtcup, media, slowlink) pass by.
            let path = format!("/janus/{session}?maxev=1");
            answer = http::call(&self.base, "GET", &path, &[], "")?
                .expect(200, &path)?
                .json()?;
        }
        let data = &answer["plugindata"]["data"];
        if !data["error"].is_null() {
            return Err(format!("Janus' videoroom refused: {}", data["error"]).into());
        }
        Ok(answer)
    }

    fn room(&mut self, name: &str) -> Result<u64, Error> {
        if let Some(room) = self.rooms.get(name) {
            return Ok(*room);
        }
        let room = 1_000 + self.rooms.len() as u64;
        let handle = self.attach()?;
        let create = json!({
            "request": "create", "room": room, "description": name, "publishers": 1_000, "bitrate": 0,
            "audiocodec": "opus", "videocodec": "vp8", "notify_joining": false, "permanent": false,
        });
        self.request(&handle, create, None)?;
        self.rooms.insert(name.to_owned(), room);
        Ok(room)
    }

    fn publish(&mut self, local: &Local, room: &str, name: &str) -> Result<Negotiated, Error> {
        let number = self.room(room)?;
        let feed = self.feeds.len() as u64 + 1;
        let handle = self.attach()?;
        let join = json!({
            "request": "joinandconfigure", "ptype": "publisher", "room": number, "id": feed, "display": name,
            "audio": true, "video": true,
        });
        let lines = [(Kind::Audio, Direction::Send), (Kind::Video, Direction::Send)];
        let jsep = json!({ "type": "offer", "sdp": offer(local, &lines) });
        let answer = self.request(&handle, join, Some(jsep))?;
        let sdp = answer["jsep"]["sdp"]
            .as_str()
            .ok_or("Janus gave a publisher no answer")?;
        self.feeds.insert((room.to_owned(), name.to_owned()), feed);
        Ok(Negotiated {
            remote: Remote::parse(sdp)?,
            we_offered: true,
        })
    }

    fn subscribe(&mut self, local: &Local, room: &str, names: &[String]) -> Result<Negotiated, Error> {
        let number = self.room(room)?;
        let mut streams = Vec::new();
        for name in names {
            let feed = self.feeds.get(&(room.to_owned(), name.clone()));
            streams.push(json!({ "feed": feed.ok_or("nobody of that name publishes")? }));
        }
        let handle = self.attach()?;
        let join = json!({ "request": "join", "ptype": "subscriber", "room": number, "streams": streams });
        let end = Instant::now() + PATIENCE;
        let offered = loop {
            match self.request(&handle, join.clone(), None) {
                // A publisher is there for others a moment after its own side is connected.
                Err(error) if error.to_string().contains("No such feed") && Instant::now() < end => {
                    sleep(FEED_INTERVAL);
                }
                other => break other?,
            }
        };
        let sdp = offered["jsep"]["sdp"]
            .as_str()
            .ok_or("Janus gave a subscriber no offer")?;
        let remote = Remote::parse(sdp)?;
        let jsep = json!({ "type": "answer", "sdp": answer(local, &remote) });
        self.request(&handle, json!({ "request": "start" }), Some(jsep))?;
        Ok(Negotiated {
            remote,
            we_offered: false,
        })
    }
}

impl Signalling for Janus {
    fn join(&mut self, local: &Local, wish: &Wish) -> Result<Negotiated, Error> {
        match wish {
            Wish::Publish { room, name } => self.publish(local, room, name),
            Wish::Subscribe { room, names } => self.subscribe(local, room, names),
            Wish::Call { .. } => {
                Err("Janus' videoroom publishes and subscribes on connections of their own".into())
            }
        }
    }

    fn manner(&self) -> Manner {
        Manner::PublishAndSubscribe
    }

    fn attend(&mut self) -> Result<(), Error> {
        if let Some(session) = self.session.filter(|_| self.heard.elapsed() > KEEPALIVE_INTERVAL) {
            self.post(&format!("/janus/{session}"), json!({ "janus": "keepalive" }))?;
        }
        Ok(())
    }

    fn leave(&mut self, _until: Instant) {
        // Everything hangs on the one session.
        if let Some(session) = self.session.take() {
            let _ = self.post(&format!("/janus/{session}"), json!({ "janus": "destroy" }));
        }
    }
}
