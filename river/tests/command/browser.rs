//! A headless Chromium, driven by the `DevTools` protocol.

use std::fmt;
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use serde_json::{Value, json};
use tempfile::TempDir;
use tungstenite::stream::MaybeTlsStream;
use tungstenite::{Message, WebSocket};

/// Only to keep the test from hanging.
const LIMIT: Duration = Duration::from_secs(60);

/// A page in its own browser, which ends with it.
pub(crate) struct Page {
    socket: WebSocket<MaybeTlsStream<TcpStream>>,
    session: Option<String>,
    next: u64,
    /// The exceptions that the page's script has thrown.
    pub(crate) exceptions: Vec<Value>,
    browser: Child,
    _profile: TempDir,
}

impl Page {
    /// Opens a file. Returns `None`, after saying so, if there is no Chromium.
    pub(crate) fn open(path: &Path) -> Option<Self> {
        let profile = tempfile::tempdir().unwrap();
        let mut command = Command::new("chromium");
        command
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
            ])
            .args(["--remote-debugging-port=0", "--window-size=1200,900"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0);
        let mut browser = match command.spawn() {
            Ok(browser) => browser,
            Err(error) => {
                eprintln!("skipped: the page in a browser (chromium: {error})");
                return None;
            }
        };
        let stderr = BufReader::new(browser.stderr.take().unwrap());
        let address = stderr
            .lines()
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("DevTools listening on ").map(str::to_owned));
        let address = address.expect("Chromium says where it listens");
        let (socket, _) = tungstenite::connect(address).unwrap();
        if let MaybeTlsStream::Plain(stream) = socket.get_ref() {
            stream.set_read_timeout(Some(LIMIT)).unwrap();
        }
        let mut page =
            Self { socket, session: None, next: 0, exceptions: Vec::new(), browser, _profile: profile };
        let target = page.call("Target.createTarget", json!({"url": "about:blank"}));
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let session = page.call("Target.attachToTarget", attach);
        page.session = Some(session["sessionId"].as_str().unwrap().to_owned());
        page.call("Runtime.enable", json!({}));
        page.call("Page.enable", json!({}));
        page.call("Page.navigate", json!({"url": format!("file://{}", path.display())}));
        page.eventually(
            "document.readyState == 'complete' && document.getElementById('status').dataset.messages",
        );
        Some(page)
    }

    /// Sends a command, and returns its result.
    pub(crate) fn call(&mut self, method: &str, params: Value) -> Value {
        self.next += 1;
        let mut command = json!({"id": self.next, "method": method, "params": params});
        if let Some(session) = &self.session {
            command["sessionId"] = json!(session);
        }
        self.socket.send(Message::text(command.to_string())).unwrap();
        loop {
            let text = self.socket.read().unwrap().into_text().unwrap();
            let Ok(answer) = serde_json::from_str::<Value>(&text) else { continue };
            if answer["method"] == "Runtime.exceptionThrown" {
                self.exceptions.push(answer["params"]["exceptionDetails"].clone());
            }
            if answer["id"] == self.next {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].clone();
            }
        }
    }

    /// The value of an expression in the page.
    pub(crate) fn get(&mut self, expression: &str) -> Value {
        let params = json!({"expression": expression, "returnByValue": true});
        let result = self.call("Runtime.evaluate", params);
        assert!(result["exceptionDetails"].is_null(), "{expression}: {result}");
        result["result"]["value"].clone()
    }

    pub(crate) fn text(&mut self, selector: &str) -> String {
        let text = self.get(&format!("document.querySelector('{selector}').textContent"));
        text.as_str().unwrap().to_owned()
    }

    /// How many elements match.
    pub(crate) fn count(&mut self, selector: &str) -> u64 {
        self.get(&format!("document.querySelectorAll('{selector}').length")).as_u64().unwrap()
    }

    /// Waits until an expression is true, since the page draws asynchronously.
    pub(crate) fn eventually(&mut self, expression: &str) {
        let start = Instant::now();
        while !self.get(&format!("!!({expression})")).as_bool().unwrap() {
            assert!(start.elapsed() < LIMIT, "never true: {expression}");
            std::thread::yield_now();
        }
    }

    /// The position of the middle of an element.
    pub(crate) fn place(&mut self, selector: &str) -> (f64, f64) {
        let expression = format!(
            "(() => {{ const e = document.querySelector('{selector}'); e.scrollIntoView({{block: 'nearest'}}); \
             const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; }})()"
        );
        let place = self.get(&expression);
        (place[0].as_f64().unwrap(), place[1].as_f64().unwrap())
    }

    pub(crate) fn mouse(&mut self, kind: &str, (x, y): (f64, f64), more: Value) {
        let mut params = json!({"type": kind, "x": x, "y": y});
        for (key, value) in more.as_object().unwrap() {
            params[key] = value.clone();
        }
        self.call("Input.dispatchMouseEvent", params);
    }

    pub(crate) fn click_at(&mut self, place: (f64, f64)) {
        self.mouse("mouseMoved", place, json!({}));
        for kind in ["mousePressed", "mouseReleased"] {
            self.mouse(kind, place, json!({"button": "left", "clickCount": 1}));
        }
    }

    pub(crate) fn click(&mut self, selector: &str) {
        let place = self.place(selector);
        self.click_at(place);
    }

    /// Presses a character key.
    pub(crate) fn press(&mut self, key: &str) {
        for kind in ["keyDown", "keyUp"] {
            self.call("Input.dispatchKeyEvent", json!({"type": kind, "key": key, "text": key}));
        }
    }
}

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Page").finish_non_exhaustive()
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        let _ = rustix::process::kill_process_group(Pid::from_child(&self.browser), Signal::KILL);
        let _ = self.browser.wait();
    }
}
