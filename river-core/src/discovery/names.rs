//! Resolves the names of machines that are probed directly. A lookup may take arbitrarily long, so it runs in the
//! background, and the result is cached for later searches.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// A cached address older than this is looked up again when it is used.
const FRESH: Duration = Duration::from_secs(60);

type LookUp = fn(&str) -> io::Result<Vec<IpAddr>>;

/// A cache of names and their addresses.
pub(super) struct Names {
    look_up: LookUp,
    known: Mutex<HashMap<String, Name>>,
    /// Notified when a lookup has ended.
    told: Condvar,
}

#[derive(Debug, Default)]
struct Name {
    addresses: Vec<IpAddr>,
    found: Option<Instant>,
    under_way: bool,
}

impl Names {
    /// The cache of this process.
    pub(super) fn of_process() -> &'static Arc<Self> {
        static NAMES: LazyLock<Arc<Names>> = LazyLock::new(|| Arc::new(Names::new(ask_system)));
        &NAMES
    }

    fn new(look_up: LookUp) -> Self {
        Self { look_up, known: Mutex::default(), told: Condvar::new() }
    }

    /// Looks up names in the background, and waits for those that are new, no longer than `patience` in total.
    pub(super) fn look_up<'a>(self: &Arc<Self>, names: impl Iterator<Item = &'a str>, patience: Duration) {
        let mut new = Vec::new();
        for name in names {
            let mut known = self.known();
            let entry = known.entry(name.to_owned()).or_default();
            if entry.under_way || entry.found.is_some_and(|found| found.elapsed() < FRESH) {
                continue;
            }
            entry.under_way = true;
            if entry.found.is_none() {
                new.push(name);
            }
            drop(known);
            self.begin(name.to_owned());
        }
        let is_new = |known: &mut HashMap<String, Name>| {
            new.iter().any(|name| known.get(*name).is_some_and(|entry| entry.under_way))
        };
        drop(self.told.wait_timeout_while(self.known(), patience, is_new));
    }

    /// The addresses of a name, as far as they are known.
    pub(super) fn addresses(&self, name: &str) -> Vec<IpAddr> {
        self.known().get(name).map_or_else(Vec::new, |entry| entry.addresses.clone())
    }

    pub(super) fn is_under_way(&self, name: &str) -> bool {
        self.known().get(name).is_some_and(|entry| entry.under_way)
    }

    fn begin(self: &Arc<Self>, name: String) {
        let (names, asked) = (self.clone(), name.clone());
        let look = move || names.end(&asked, (names.look_up)(&asked));
        if let Err(error) = thread::Builder::new().name("river-names".into()).spawn(look) {
            self.end(&name, Err(error));
        }
    }

    fn end(&self, name: &str, found: io::Result<Vec<IpAddr>>) {
        if let Err(error) = &found {
            tracing::warn!(host = name, %error, "RIVER_HOSTS names an unknown machine");
        }
        let mut known = self.known();
        let entry = known.entry(name.to_owned()).or_default();
        entry.under_way = false;
        if let Ok(addresses) = found {
            entry.addresses = addresses;
            entry.found = Some(Instant::now());
        }
        drop(known);
        self.told.notify_all();
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, Name>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn ask_system(name: &str) -> io::Result<Vec<IpAddr>> {
    Ok((name, 0).to_socket_addrs()?.map(|address| address.ip()).filter(IpAddr::is_ipv4).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn a_name_that_takes_for_ever_holds_up_no_other() {
        let address = IpAddr::from([192, 0, 2, 7]);
        let names = Arc::new(Names::new(|name| match name {
            "slow" => {
                thread::park_timeout(LONG);
                Err(io::ErrorKind::TimedOut.into())
            }
            "wrong" => Err(io::ErrorKind::NotFound.into()),
            _ => Ok(vec![[192, 0, 2, 7].into()]),
        }));
        let began = Instant::now();
        names.look_up(["good", "wrong"].into_iter(), LONG);
        names.look_up(["slow", "better"].into_iter(), Duration::from_millis(10));
        // An earlier call has waited for "slow", so this one does not.
        names.look_up(["slow", "good", "other"].into_iter(), LONG);
        assert!(began.elapsed() < LONG);
        assert_eq!(names.addresses("good"), [address]);
        assert_eq!(names.addresses("other"), [address]);
        assert!(names.is_under_way("slow"));
        assert!(names.addresses("slow").is_empty() && names.addresses("wrong").is_empty());
    }
}
