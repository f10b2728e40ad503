//! Programs that are checkpointed, killed and restored.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rand_core::Rng;
use river_core::{
    Channel, Down, QueueLimit, RecvError, Result, Selector, SendError, StateError, VirtualResource, Vr, VrId,
    WhenFull, Why,
};
use serde::{Deserialize, Serialize};

const CHANNEL: Channel = Channel::named("test");

/// Adds to what it gets a random number, and passes it on; tells the initiator now and then.
#[derive(Serialize, Deserialize)]
struct Station {
    next: Option<VrId>,
    sum: u64,
    rounds: u64,
    /// Whether it makes safepoints.
    short: bool,
}

impl VirtualResource for Station {
    fn main(&mut self, vr: &Vr) -> Result {
        let next = match self.next {
            Some(next) => next,
            None => {
                let next = vr.receive(Selector::on(CHANNEL).from(vr.parent().expect("a parent")))?;
                *self.next.insert(VrId::from_uuid(uuid::Uuid::from_slice(next.payload.head())?))
            }
        };
        while self.rounds > 0 {
            if self.short {
                vr.safepoint(self)?;
            }
            let envelope = vr.receive(Selector::on(CHANNEL).lane(7))?;
            let value = u64::from_le_bytes(envelope.payload.head()[..].try_into()?);
            let value = value.rotate_left(1) ^ (vr.rng().next_u64() % 1000);
            self.sum = self.sum.wrapping_add(value);
            self.rounds -= 1;
            // The next one may have had enough.
            let _ = vr.send_bytes(next, CHANNEL, 7, value.to_le_bytes().to_vec());
        }
        vr.send_bytes(vr.parent().expect("a parent"), CHANNEL, 9, self.sum.to_le_bytes().to_vec())?;
        Ok(())
    }
}

const ROUNDS: u64 = 200;
const TOKENS: u64 = 5;

/// A ring of stations, through which tokens run; checkpointed while they do. The sums, and whether it was resumed.
fn ring(vr: &Vr, vms: &[river_core::VmInfo], directory: &Path, short: bool) -> Result<(Vec<u64>, bool)> {
    let ring = vr.deploy(vms, |_| Station { next: None, sum: 0, rounds: ROUNDS, short })?;
    for i in 0..ring.len() {
        let next = ring[(i + 1) % ring.len()];
        vr.send_bytes(ring[i], CHANNEL, 0, next.as_uuid().as_bytes().to_vec())?;
    }
    for token in 0..TOKENS {
        vr.send_bytes(ring[0], CHANNEL, 7, (vr.rng().next_u64() + token).to_le_bytes().to_vec())?;
    }
    let taken = vr.checkpoint(directory)?;
    let mut sums = Vec::new();
    for station in ring.iter() {
        let sum = vr.receive(Selector::on(CHANNEL).lane(9).from(station))?;
        sums.push(u64::from_le_bytes(sum.payload.head()[..].try_into()?));
    }
    Ok((sums, taken.resumed))
}

#[test]
fn a_program_goes_on_from_a_checkpoint_with_what_was_under_way() {
    for (vms, short) in [(1, false), (1, true), (3, false), (3, true)] {
        let directory = tempfile::tempdir().unwrap();
        let body = |vr: &Vr| {
            let vms: Vec<_> = vr.start_local(vms)?.into_iter().cycle().take(3).collect();
            ring(vr, &vms, directory.path(), short)
        };
        let (sums, resumed) = river_core::try_run_recoverable(body).unwrap();
        assert!(!resumed);
        // Twice from the same checkpoint.
        for _ in 0..2 {
            let (same, resumed) = river_core::restore(directory.path(), body).unwrap();
            assert!(resumed);
            assert_eq!(sums, same);
        }
    }
}

/// Its counter is asked again and again; checkpointed every few rounds. For ever longer runs than any test waits for.
fn long(vr: &Vr, directory: &Path) -> Result<u64> {
    let (mut round, counters): (u64, Vec<VrId>) = match vr.resumed()? {
        Some(progress) => progress,
        None => {
            let vms = vr.start_local(2)?;
            (0, vr.deploy(&vms, |_| Adder { sum: 0 })?.ids().to_vec())
        }
    };
    let mut last = 0;
    while round < LONG {
        vr.safepoint(&(round, &counters))?;
        if round.is_multiple_of(20) {
            vr.checkpoint(directory)?;
        }
        for counter in &counters {
            vr.send_bytes(*counter, CHANNEL, 1, round.to_le_bytes().to_vec())?;
        }
        for counter in &counters {
            let sum = vr.receive(Selector::on(CHANNEL).from(*counter))?;
            last = u64::from_le_bytes(sum.payload.head()[..].try_into()?);
        }
        round += 1;
    }
    Ok(last)
}

const LONG: u64 = 400;

#[derive(Serialize, Deserialize)]
struct Adder {
    sum: u64,
}

impl VirtualResource for Adder {
    fn main(&mut self, vr: &Vr) -> Result {
        loop {
            vr.safepoint(self)?;
            let asked = vr.receive(Selector::on(CHANNEL))?;
            let value = u64::from_le_bytes(asked.payload.head()[..].try_into()?);
            self.sum = self.sum.rotate_left(3).wrapping_add(value ^ 5);
            vr.send_bytes(asked.src, CHANNEL, 1, self.sum.to_le_bytes().to_vec())?;
        }
    }
}

/// Not a test of its own: what the tests below start in a process of its own, to kill it.
#[test]
fn helper_process() {
    let Ok(directory) = std::env::var("RIVER_TEST_STATE") else { return };
    let directory = PathBuf::from(directory);
    let body = |vr: &Vr| long(vr, &directory);
    let result = match std::env::var_os("RIVER_TEST_RESTORE") {
        Some(_) => river_core::restore(&directory, body),
        None => river_core::try_run_recoverable(body),
    };
    match result {
        Ok(sum) => println!("[result {sum:x}]"),
        Err(error) => println!("[error {error}]"),
    }
}

fn helper(directory: &Path, restore: bool) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "helper_process", "--nocapture"])
        .env("RIVER_TEST_STATE", directory)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    if restore {
        command.env("RIVER_TEST_RESTORE", "1");
    }
    command
}

fn result_of(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let start = text.find('[').unwrap_or_else(|| panic!("no result in {text}"));
    text[start..].lines().next().unwrap_or_default().to_owned()
}

#[test]
fn a_program_that_is_killed_at_any_moment_ends_with_the_same_result() {
    let undisturbed = tempfile::tempdir().unwrap();
    let expected = result_of(&helper(undisturbed.path(), false).output().unwrap().stdout);
    assert!(expected.starts_with("[result "), "{expected}");
    let mut random = rand_pcg::Pcg64Mcg::new(u128::from(std::process::id()) | 1);
    for round in 0..4 {
        let directory = tempfile::tempdir().unwrap();
        let mut restore = false;
        // Killed again and again, also while it is being restored.
        for _ in 0..3 {
            let mut child = helper(directory.path(), restore).spawn().unwrap();
            let checkpoints =
                || river_core::Stored::latest(directory.path()).map_or(0, |stored| stored.number);
            let wanted = checkpoints() + 1 + random.next_u64() % 4;
            while checkpoints() < wanted && child.try_wait().unwrap().is_none() {
                std::thread::yield_now();
            }
            child.kill().unwrap();
            child.wait().unwrap();
            restore = true;
        }
        let result = result_of(&helper(directory.path(), true).output().unwrap().stdout);
        assert_eq!(result, expected, "round {round}");
    }
}

#[test]
fn a_broken_checkpoint_is_refused_and_the_one_before_is_used() {
    let directory = tempfile::tempdir().unwrap();
    let expected = result_of(&helper(directory.path(), false).output().unwrap().stdout);
    let files = || {
        let entries = std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> =
            entries.filter(|path| path.extension().is_some_and(|end| end == "river")).collect();
        files.sort();
        files
    };
    let [older, newer] = &files()[..] else { panic!("two are kept: {:?}", files()) };
    let whole = std::fs::read(newer).unwrap();
    // One bit anywhere, or the end missing.
    for broken in [
        [&whole[..whole.len() / 2], &[whole[whole.len() / 2] ^ 1], &whole[whole.len() / 2 + 1..]].concat(),
        whole[..whole.len() - 1].to_vec(),
        whole[..20].to_vec(),
        Vec::new(),
    ] {
        std::fs::write(newer, broken).unwrap();
        let stored = river_core::Stored::latest(directory.path()).unwrap();
        assert!(older.to_string_lossy().contains(&format!("{:06}", stored.number)));
        assert_eq!(stored.broken.len(), 1);
    }
    assert_eq!(result_of(&helper(directory.path(), true).output().unwrap().stdout), expected);
    for path in files() {
        std::fs::write(path, &whole[..whole.len() - 7]).unwrap();
    }
    let error = river_core::Stored::latest(directory.path()).unwrap_err().to_string();
    assert!(error.contains("incomplete or was altered"), "{error}");
    let nothing = tempfile::tempdir().unwrap();
    let error = river_core::Stored::latest(nothing.path()).unwrap_err().to_string();
    assert!(error.contains("there is no checkpoint"), "{error}");
}

#[test]
fn a_program_that_is_not_deterministic_is_told_where() {
    let directory = tempfile::tempdir().unwrap();
    let body = |vr: &Vr| -> Result {
        let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
        vr.send_bytes(vr.id(), CHANNEL, 0, clock.as_nanos().to_le_bytes().to_vec())?;
        vr.checkpoint(directory.path())?;
        Ok(())
    };
    river_core::try_run_recoverable(body).unwrap();
    let error = river_core::restore(directory.path(), body).unwrap_err().to_string();
    assert!(error.contains("line 1 of the record since its beginning says a send of 16 bytes"), "{error}");
    assert!(error.contains("with other bytes"), "{error}");
}

#[test]
fn effects_and_the_time_are_remembered() {
    let directory = tempfile::tempdir().unwrap();
    let mut acts = 0;
    let mut body = |vr: &Vr| -> Result<_> {
        let told = vr.effect(|| {
            acts += 1;
            acts
        })?;
        let now = vr.now();
        vr.checkpoint(directory.path())?;
        Ok((told, now, vr.rng().next_u64(), vr.program(), vr.fresh_number()))
    };
    let first = river_core::try_run_recoverable(&mut body).unwrap();
    let second = river_core::restore(directory.path(), &mut body).unwrap();
    assert_eq!(first, second);
    assert_eq!(acts, 1);
}

#[derive(Serialize, Deserialize)]
struct Sleeper;

impl VirtualResource for Sleeper {
    fn main(&mut self, vr: &Vr) -> Result {
        vr.receive(Selector::on(CHANNEL))?;
        Ok(())
    }
}

#[test]
fn a_vr_that_is_not_recoverable_is_named_and_the_program_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    river_core::try_run(|vr| {
        let vms = vr.start_local(1)?;
        let sleepers = vr.deploy_recoverable(&vms, |_| Sleeper)?;
        let error = vr.checkpoint(directory.path()).unwrap_err();
        let StateError::NotRecoverable { vr: named, more: 0, .. } = error else { panic!("{error}") };
        assert_eq!(named, vr.id());
        // Nobody is left frozen.
        vr.send_bytes(sleepers[0], CHANNEL, 0, vec![])?;
        let end = vr.receive(Selector::on(CHANNEL).from(sleepers[0])).unwrap_err();
        assert!(matches!(end, RecvError::Down(Down { why: Why::Finished, .. })), "{end}");
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_checkpoint_that_cannot_be_written_is_an_error_and_no_more() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "not a directory").unwrap();
    let result = river_core::try_run_recoverable(|vr| {
        let error = vr.checkpoint(&file).unwrap_err().to_string();
        assert!(error.contains("file"), "{error}");
        vr.send_bytes(vr.id(), CHANNEL, 0, vec![5])?;
        Ok(vr.receive(Selector::on(CHANNEL))?.payload.head()[0])
    });
    assert_eq!(result.unwrap(), 5);
}

/// Who has ended before the checkpoint stays so, and who waits for its end hears of it.
#[test]
fn the_dead_stay_dead_and_children_may_be_deployed_later() {
    let directory = tempfile::tempdir().unwrap();
    let body = |vr: &Vr| -> Result<(u64, bool)> {
        let vms = vr.start_local(1)?;
        let first = vr.deploy(&vms, |_| Sleeper)?;
        vr.send_bytes(first[0], CHANNEL, 0, vec![])?;
        vr.watch(first[0]);
        vr.receive(Selector::on(CHANNEL)).unwrap_err();
        let taken = vr.checkpoint(directory.path())?;
        let again = vr.receive(Selector::on(CHANNEL).from(first[0])).unwrap_err();
        assert!(matches!(again, RecvError::Down(Down { why: Why::Finished, .. })), "{again}");
        // On a VM of which only another incarnation is there.
        let adder = vr.deploy(&vms, |_| Adder { sum: 1 })?;
        vr.send_bytes(adder[0], CHANNEL, 1, 9_u64.to_le_bytes().to_vec())?;
        let sum = vr.receive(Selector::on(CHANNEL).from(adder[0]))?;
        Ok((u64::from_le_bytes(sum.payload.head()[..].try_into()?), taken.resumed))
    };
    let (first, resumed) = river_core::try_run_recoverable(body).unwrap();
    assert!(!resumed);
    assert_eq!(river_core::restore(directory.path(), body).unwrap(), (first, true));
}

/// Takes nothing out of its mailbox, which has a limit, until there is a checkpoint.
#[derive(Serialize, Deserialize)]
struct Narrow {
    state: PathBuf,
}

/// Fills it, and tells the initiator before each envelope.
#[derive(Serialize, Deserialize)]
struct Filler {
    narrow: VrId,
}

const MANY: u64 = 20;

impl VirtualResource for Narrow {
    fn main(&mut self, vr: &Vr) -> Result {
        let parent = vr.parent().expect("a parent");
        let when_full = WhenFull::Wait;
        vr.limit_queue(Some(QueueLimit { messages: 2, bytes: 1 << 20, when_full }));
        vr.send_bytes(parent, CHANNEL, 1, vec![])?;
        let taken = || self.state.join("checkpoint-000001.river").exists();
        while !vr.effect(taken)? {
            let soon = std::time::Instant::now() + std::time::Duration::from_millis(5);
            vr.receive_until(Selector::on(CHANNEL).lane(3), Some(soon), |_| true).unwrap_err();
        }
        let mut sum = 0;
        for _ in 0..MANY {
            sum = sum * 3 + u64::from(vr.receive(Selector::on(CHANNEL).lane(2))?.payload.head()[0]);
        }
        vr.send_bytes(parent, CHANNEL, 4, sum.to_le_bytes().to_vec())?;
        Ok(())
    }
}

impl VirtualResource for Filler {
    fn main(&mut self, vr: &Vr) -> Result {
        for number in 0..MANY {
            vr.send_bytes(vr.parent().expect("a parent"), CHANNEL, 5, vec![number as u8])?;
            vr.send_bytes(self.narrow, CHANNEL, 2, vec![number as u8])?;
        }
        Ok(())
    }
}

#[test]
fn who_waits_for_room_does_not_keep_a_checkpoint_from_being_taken() {
    for vms in [1, 2] {
        let directory = tempfile::tempdir().unwrap();
        let body = |vr: &Vr| -> Result<(u64, bool)> {
            let vms = vr.start_local(vms)?;
            let narrow = vr.deploy(&vms[..1], |_| Narrow { state: directory.path().into() })?[0];
            vr.receive(Selector::on(CHANNEL).lane(1).from(narrow))?;
            let filler = vr.deploy(&vms[vms.len() - 1..], |_| Filler { narrow })?[0];
            // It is about to send what there is no room for.
            for _ in 0..3 {
                vr.receive(Selector::on(CHANNEL).lane(5).from(filler))?;
            }
            let taken = vr.checkpoint(directory.path())?;
            let sum = vr.receive(Selector::on(CHANNEL).lane(4).from(narrow))?;
            Ok((u64::from_le_bytes(sum.payload.head()[..].try_into()?), taken.resumed))
        };
        let (sum, resumed) = river_core::try_run_recoverable(body).unwrap();
        assert!(!resumed);
        assert_eq!(river_core::restore(directory.path(), body).unwrap(), (sum, true));
    }
}

/// Not a test of its own: what the test below starts in a process whose files are limited.
#[test]
fn helper_with_little_disk() {
    let Ok(directory) = std::env::var("RIVER_TEST_LIMITED") else { return };
    let result = river_core::try_run_recoverable(|vr| {
        vr.checkpoint(&directory)?;
        // More than a file may have.
        vr.safepoint(&"x".repeat(LIMIT + (8 << 20)))?;
        let error = vr.checkpoint(&directory).unwrap_err().to_string();
        vr.safepoint("little")?;
        // The program goes on, and when there is room again there is a checkpoint again.
        let taken = vr.checkpoint(&directory)?;
        Ok(format!("{error}; then {}", taken.number))
    });
    println!("[result {}]", result.unwrap_or_else(|error| error.to_string()));
}

/// As large as a file may be there: room for the image.
const LIMIT: usize = 64 << 20;

#[test]
fn a_disk_that_is_full_leaves_the_old_checkpoint_and_the_program() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    // A write beyond the limit is an error, as on a full disk, if the signal is ignored.
    let script = format!("trap '' XFSZ; ulimit -f {}; exec \"$0\" \"$@\"", LIMIT / 512);
    let output = Command::new("sh")
        .args(["-c", &script])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "helper_with_little_disk", "--nocapture"])
        .env("RIVER_TEST_LIMITED", &state)
        .output()
        .unwrap();
    let result = result_of(&output.stdout);
    assert!(result.contains("File too large"), "{result} {output:?}");
    assert!(result.contains("checkpoint-000002") && result.contains("then 2"), "{result}");
    // Nothing of the one that failed is left.
    let mut names: Vec<_> =
        std::fs::read_dir(&state).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names.len(), 3, "{names:?}");
    assert_eq!(names[..2], ["checkpoint-000001.river", "checkpoint-000002.river"]);
    assert_eq!(river_core::Stored::latest(&state).unwrap().number, 2);
}

/// Takes one envelope at a time, and nothing before it is told to.
#[derive(Serialize, Deserialize)]
struct Full;

impl VirtualResource for Full {
    fn main(&mut self, vr: &Vr) -> Result {
        vr.limit_queue(Some(QueueLimit { messages: 1, bytes: usize::MAX, when_full: WhenFull::Refuse }));
        let parent = vr.parent().expect("a parent");
        vr.send_bytes(parent, CHANNEL, 1, Vec::new())?;
        vr.receive(Selector::on(CHANNEL).lane(9))?;
        Ok(())
    }
}

/// Sends to who is full, again and again, until it is told to stop; says how often it was refused.
#[derive(Serialize, Deserialize)]
struct Pushing {
    to: VrId,
    refused: u64,
}

impl VirtualResource for Pushing {
    fn main(&mut self, vr: &Vr) -> Result {
        let parent = vr.parent().expect("a parent");
        loop {
            vr.safepoint(self)?;
            if vr.try_receive_where(Selector::on(CHANNEL).from(parent), |_| true)?.is_some() {
                vr.send_bytes(parent, CHANNEL, 2, self.refused.to_le_bytes().to_vec())?;
                return Ok(());
            }
            for _ in 0..50 {
                match vr.send_bytes(self.to, CHANNEL, 1, Vec::new()) {
                    Err(SendError::Full(_)) => self.refused += 1,
                    other => other?,
                }
            }
        }
    }
}

/// A send that is refused was recorded before it was made, and does not arrive: nobody may wait for it.
#[test]
fn sends_that_are_refused_do_not_hold_a_checkpoint_up() {
    let directory = tempfile::tempdir().unwrap();
    let body = |vr: &Vr| {
        let vms = vr.start_local(2)?;
        let full = vr.deploy(&vms[..1], |_| Full)?[0];
        vr.receive(Selector::on(CHANNEL).from(full))?;
        let places = [vms[0].clone(), vms[1].clone()];
        let pushing = vr.deploy(&places, |_| Pushing { to: full, refused: 0 })?;
        for _ in 0..60 {
            vr.checkpoint(directory.path())?;
        }
        for pushing in pushing.iter() {
            vr.send_bytes(pushing, CHANNEL, 0, Vec::new())?;
            let refused = vr.receive(Selector::on(CHANNEL).lane(2).from(pushing))?;
            assert!(u64::from_le_bytes(refused.payload.head()[..].try_into()?) > 0);
        }
        Ok(())
    };
    river_core::try_run_recoverable(body).unwrap();
}
