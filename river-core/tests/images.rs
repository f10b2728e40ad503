//! A program whose VMs run another of its images than its initiator does.

mod scene;

use std::any::Any;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use river_core::code::{CodeError, CodePtr, Trampoline, code_ptr};
use river_core::{Channel, Panic, Query, Result, Selector, VirtualResource, VmInfo, Vr, VrId, catch_traced};
use scene::{Process, Scene};
use serde::{Deserialize, Serialize};

const ASK: Channel = Channel::named("ask");
const TELL: Channel = Channel::named("tell");
/// A byte at the beginning of an executable that nobody looks at (`e_ident` in elf(5)).
const PADDING: usize = 12;

struct Call;

impl<F: Fn(i64) -> i64 + 'static> Trampoline<F> for Call {
    fn enter(f: F, context: &mut dyn Any) {
        let value = context.downcast_mut::<i64>().unwrap();
        *value = f(*value);
    }
}

fn plus_ten(x: i64) -> i64 {
    x + 10
}

fn doubled<T: std::ops::Add<Output = T> + Copy>(x: T) -> T {
    x + x
}

#[cfg(not(target_env = "musl"))]
fn only_where_musl_is_not(x: i64) -> i64 {
    x - 1
}

fn two_closures() -> [CodePtr; 2] {
    [code_ptr::<Call, _>(|x| x + 1), code_ptr::<Call, _>(|x| x + 2)]
}

fn the_only_closure() -> CodePtr {
    code_ptr::<Call, _>(|x| x * x)
}

fn call(pointer: CodePtr, mut value: i64) -> std::result::Result<i64, CodeError> {
    pointer.resolve()?(&mut value);
    Ok(value)
}

/// What tells images apart: the C library, and a byte without meaning.
fn image() -> String {
    let executable = std::fs::read("/proc/self/exe").unwrap();
    format!("{} {}", if cfg!(target_env = "musl") { "musl" } else { "other" }, executable[PADDING])
}

#[derive(Serialize, Deserialize)]
enum Ask {
    Image,
    Call(CodePtr, i64),
    /// Asks for pointers: to a function, to the only closure in a function, and to one of two.
    Name,
    Panics,
    /// Asks for a program within the program, which has a VM call the function.
    Program(CodePtr, i64),
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Tell {
    Image(String),
    Value(std::result::Result<i64, String>),
    Names([CodePtr; 3]),
    Panicked(Panic),
}

/// Answers questions.
#[derive(Serialize, Deserialize)]
struct Worker;

impl VirtualResource for Worker {
    fn main(&mut self, vr: &Vr) -> Result {
        let parent = vr.parent().expect("it was deployed");
        loop {
            // Before it moves, it has been told what it would not be told where another image runs.
            vr.safepoint(self)?;
            let asked = vr.receive(Selector::on(ASK))?;
            let answer = match postcard::from_bytes(&asked.payload.to_bytes())? {
                Ask::Image => Tell::Image(vr.effect(image)?),
                Ask::Call(code, value) => Tell::Value(call(code, value).map_err(|error| error.to_string())),
                Ask::Name => {
                    let named = code_ptr::<Call, _>(doubled::<i64>);
                    Tell::Names([named, the_only_closure(), two_closures()[1]])
                }
                Ask::Program(code, value) => Tell::Value(vr.effect(|| program_within(code, value))?),
                Ask::Panics => Tell::Panicked(catch_traced(|| panic!("as it was asked to")).unwrap_err()),
            };
            vr.send_bytes(parent, TELL, 0, postcard::to_stdvec(&answer)?)?;
        }
    }
}

fn program_within(code: CodePtr, value: i64) -> std::result::Result<i64, String> {
    let result = river_core::try_run(|vr| {
        let vms = vr.start_local(1)?;
        let [worker] = vr.deploy(&vms, |_| Worker)?.iter().collect::<Vec<_>>()[..] else { panic!("one VR") };
        assert_eq!(ask(vr, worker, &Ask::Image)?, Tell::Image(image()));
        let Tell::Value(first) = ask(vr, worker, &Ask::Call(code, value))? else { panic!("no value") };
        let again = Ask::Call(two_closures()[1], first.map_err(std::io::Error::other)?);
        let Tell::Value(second) = ask(vr, worker, &again)? else { panic!("no value") };
        Ok(second.map_err(std::io::Error::other)?)
    });
    result.map_err(|error| error.to_string())
}

fn ask(vr: &Vr, worker: VrId, question: &Ask) -> Result<Tell> {
    vr.send_bytes(worker, ASK, 0, postcard::to_stdvec(question)?)?;
    let answer = vr.receive(Selector::on(TELL).from(worker))?;
    Ok(postcard::from_bytes(&answer.payload.to_bytes())?)
}

fn refused(answer: &Tell) -> &str {
    match answer {
        Tell::Value(Err(error)) => error,
        other => panic!("{other:?}"),
    }
}

/// The program: VM `a` has the machine that it was built for, `b` and `c` need the other image.
fn program(vr: &Vr) -> Result {
    let set = |name| std::env::var(name).ok();
    let mut vms = vr.discover(Query { count: Some(3), ..Query::default() })?;
    vms.sort_by(|a, b| a.name.cmp(&b.name));
    if let Some(triple) = set("RIVER_TEST_TRIPLE") {
        vms[1..].iter_mut().for_each(|vm| vm.triple.clone_from(&triple));
    }
    let vms: Vec<VmInfo> = vr.allocate(vms, 3)?;
    let workers: Vec<VrId> = vr.deploy(&vms, |_| Worker)?.iter().collect();
    let [same, other, second] = workers[..] else { panic!("{workers:?}") };
    let expected = set("RIVER_TEST_IMAGE").unwrap();
    assert_eq!(ask(vr, same, &Ask::Image)?, Tell::Image(image()));
    for worker in [other, second] {
        assert_eq!(ask(vr, worker, &Ask::Image)?, Tell::Image(expected.clone()));
    }

    // What the initiator names is found there, or refused.
    let [_, closure] = two_closures();
    for worker in workers.clone() {
        assert_eq!(ask(vr, worker, &Ask::Call(code_ptr::<Call, _>(plus_ten), 5))?, Tell::Value(Ok(15)));
        assert_eq!(ask(vr, worker, &Ask::Call(code_ptr::<Call, _>(doubled::<i64>), 5))?, Tell::Value(Ok(10)));
        assert_eq!(ask(vr, worker, &Ask::Call(the_only_closure(), 5))?, Tell::Value(Ok(25)));
    }
    assert_eq!(ask(vr, same, &Ask::Call(closure, 5))?, Tell::Value(Ok(7)));
    let answer = ask(vr, other, &Ask::Call(closure, 5))?;
    let error = refused(&answer);
    assert!(error.contains("two_closures::{{closure}}") && error.contains("`fn`"), "{error}");
    #[cfg(not(target_env = "musl"))]
    if expected.starts_with("musl") {
        let answer = ask(vr, other, &Ask::Call(code_ptr::<Call, _>(only_where_musl_is_not), 5))?;
        assert!(refused(&answer).contains("has no images::only_where_musl_is_not"), "{answer:?}");
    }

    // What is named there is found here and elsewhere, or refused where another image runs.
    let Tell::Names([named, only, closure]) = ask(vr, other, &Ask::Name)? else { panic!("no names") };
    assert_eq!((call(named, 5), call(only, 5)), (Ok(10), Ok(25)));
    assert_eq!(call(closure, 5), Err(CodeError::OtherImage));
    for worker in workers.clone() {
        assert_eq!(ask(vr, worker, &Ask::Call(named, 5))?, Tell::Value(Ok(10)));
        assert_eq!(ask(vr, worker, &Ask::Call(only, 5))?, Tell::Value(Ok(25)));
    }
    assert!(refused(&ask(vr, same, &Ask::Call(closure, 5))?).contains("another image"));
    assert_eq!(ask(vr, second, &Ask::Call(closure, 5))?, Tell::Value(Ok(7)));

    // A program that is started there has the same pointers.
    let within = Ask::Program(code_ptr::<Call, _>(plus_ten), 5);
    assert_eq!(ask(vr, other, &within)?, Tell::Value(Ok(17)));

    // VMs with the other image cannot keep checkpoints, as the program could not be restored from them.
    let error = vr.checkpoint_in_memory().unwrap_err().to_string();
    assert!(error.contains("from the initiator's image") && error.contains("the program has 1"), "{error}");

    // A VR moves from one image to the other.
    vr.migrate(same, &vms[1])?;
    assert_eq!(ask(vr, same, &Ask::Image)?, Tell::Image(expected));
    assert_eq!(ask(vr, same, &Ask::Call(code_ptr::<Call, _>(plus_ten), 5))?, Tell::Value(Ok(15)));

    // The calls that led to a panic are not looked up in the wrong image.
    let Tell::Panicked(panic) = ask(vr, other, &Ask::Panics)? else { panic!("no panic") };
    let calls = panic.trace.unwrap().to_string();
    let mut lines = calls.lines();
    assert!(panic.text.contains("as it was asked to") && lines.next().unwrap().contains("in the image for"));
    assert!(lines.clone().count() > 5 && lines.all(|line| line.contains(": 0x")), "{calls}");
    Ok(())
}

/// Runs the program with an image for `triple` at its place.
fn runs_with(scene: &Scene, triple: &str, other: &Path, env: &[(&str, &str)]) {
    let executable = std::env::current_exe().unwrap();
    let place = scene.path("images").join(triple);
    std::fs::create_dir_all(&place).unwrap();
    std::os::unix::fs::symlink(other, place.join(executable.file_name().unwrap())).unwrap();
    let mut command = scene.command(&[], "images");
    command.env("RIVER_IMAGES", scene.path("images")).env("RUST_BACKTRACE", "1");
    let process = Process::start(command.envs(env.iter().copied()));
    assert_eq!(process.expect("the program ended"), "Ok(())");
}

/// The other image is a copy of this one that differs in one byte, so it is another image with the same functions.
#[test]
fn functions_are_found_by_name_where_another_image_runs() {
    let scene = Scene::new();
    let mut executable = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    executable[PADDING] = 77;
    std::fs::write(scene.path("copy"), executable).unwrap();
    let _vms = ["a", "b", "c"].map(|name| scene.vm(&[], name, false));
    let arch = std::env::consts::ARCH;
    let env = [("RIVER_TEST_TRIPLE", &*format!("{arch}-linux-other")), ("RIVER_TEST_IMAGE", "other 77")];
    runs_with(&scene, &format!("{arch}-unknown-linux-other"), &scene.path("copy"), &env);
}

#[test]
fn a_vm_for_which_there_is_no_image_is_refused() {
    let scene = Scene::new();
    let _vms = ["a", "b", "c"].map(|name| scene.vm(&[], name, false));
    let mut command = scene.command(&[], "images");
    let process = Process::start(command.env("RIVER_TEST_TRIPLE", "riscv64-linux-gnu"));
    let error = process.expect("the program ended");
    assert!(error.contains("runs on riscv64-linux-gnu") && error.contains("RIVER_IMAGES"), "{error}");
}

/// The other image is for another C library, and was built by itself. Takes minutes to build, so `.ci/run` asks for it.
#[test]
#[ignore = "builds this test for another target"]
fn an_image_for_another_target_runs_the_same_functions() {
    let triple = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
    let Some(other) = build(&triple) else { return };
    let scene = Scene::new();
    let _own = scene.vm(&[], "a", false);
    let _others = ["b", "c"].map(|name| {
        let usual = scene.command(&[], "vm");
        let mut command = Command::new(&other);
        command
            .args(usual.get_args())
            .envs(usual.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.env("RIVER_TEST_NAME", name).env("RIVER_CACHE", scene.path(&format!("cache-{name}")));
        let process = Process::start(command.stdin(Stdio::piped()).stdout(Stdio::piped()));
        process.expect("ready");
        process
    });
    runs_with(&scene, &triple, &other, &[("RIVER_TEST_IMAGE", "musl 0")]);
}

/// Builds this test for a target, and returns the executable; `None`, after saying so, where the target is not installed.
fn build(triple: &str) -> Option<PathBuf> {
    let installed = Command::new("rustc").args(["--print", "target-libdir", "--target", triple]).output();
    let libraries = installed.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    if !libraries.is_ok_and(|directory| Path::new(&directory).exists()) {
        eprintln!("skipped: the target {triple} is not installed");
        return None;
    }
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    cargo.args(["test", "--no-run", "--test", "images", "--message-format", "json", "--target", triple]);
    // The little C in the dependencies calls no library, so any compiler for this processor will do.
    cargo.env(format!("CC_{}", triple.replace('-', "_")), "cc");
    let output = cargo.env("CARGO_PROFILE_DEV_DEBUG", "0").stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "it is not built for {triple}");
    let output = String::from_utf8_lossy(&output.stdout);
    let executable = output.rsplit_once(r#""executable":""#).and_then(|(_, rest)| rest.split_once('"'));
    Some(executable.expect("cargo names the executable").0.into())
}

/// Not a test: what `Scene::command` runs.
#[test]
fn helper_process() {
    if std::env::var("RIVER_TEST_PART").as_deref() == Ok("images") {
        let ended = river_core::try_run_recoverable(program);
        println!("[the program ended] {ended:?}");
    } else {
        scene::play();
    }
}
