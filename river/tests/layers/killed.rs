//! Programs of each layer, checkpointed repeatedly at arbitrary moments, killed, and restored: their results must be what
//! they would have been otherwise.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rand_core::Rng;
use river::core::Vr;
use river::mapreduce::{Cluster, Input, Job, MapContext, ReduceContext, Values, job};
use river::mpi::Communicator;
use river::rai::{Rai, RaiServer};

use super::programs::{collatz, program};

/// Not a test itself: the tests below run it in a process of its own, to kill it.
#[test]
fn helper_process() {
    let (Ok(name), Ok(directory)) = (std::env::var("RIVER_TEST_LAYER"), std::env::var("RIVER_CHECKPOINT"))
    else {
        return;
    };
    let directory = PathBuf::from(directory);
    let body = |vr: &Vr| program(&name)(vr, &vr.start_local(2)?);
    let result = match std::env::var_os("RIVER_TEST_RESTORE") {
        Some(_) => river::restore(&directory, body),
        None => river::try_run_recoverable(body),
    };
    match result {
        Ok(result) => println!("[result {result}]"),
        Err(error) => println!("[error {error}]"),
    }
}

fn helper(name: &str, directory: &Path, restore: bool) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "killed::helper_process", "--nocapture"])
        .envs([("RIVER_TEST_LAYER", name), ("RIVER_CHECKPOINT_EVERY", "0.02")])
        .env("RIVER_CHECKPOINT", directory)
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    if restore {
        command.env("RIVER_TEST_RESTORE", "1");
    }
    command
}

fn result_of(mut command: Command) -> String {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let start = text.find('[').unwrap_or_else(|| panic!("no result in {output:?}"));
    text[start..].lines().next().unwrap_or_default().to_owned()
}

/// The number of the newest checkpoint.
fn newest(directory: &Path) -> u64 {
    let names = std::fs::read_dir(directory).into_iter().flatten();
    let number = |name: &str| name.strip_prefix("checkpoint-")?.strip_suffix(".river")?.parse().ok();
    names.filter_map(|entry| number(entry.ok()?.file_name().to_str()?)).max().unwrap_or(0)
}

/// Kills the program three times, at checkpoints chosen by the seed, also while it is being restored from one.
fn survives(name: &str) {
    let undisturbed = tempfile::tempdir().unwrap();
    let expected = result_of(helper(name, undisturbed.path(), false));
    assert!(expected.starts_with("[result "), "{expected}");
    let seed = u64::from(std::process::id());
    let mut random = rand_pcg::Pcg64Mcg::new(u128::from(seed) | 1);
    let directory = tempfile::tempdir().unwrap();
    for kill in 0..3 {
        let mut child = helper(name, directory.path(), kill > 0).spawn().unwrap();
        let wanted = newest(directory.path()) + 1 + random.next_u64() % 8;
        while newest(directory.path()) < wanted && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert_eq!(result_of(helper(name, directory.path(), true)), expected, "seed {seed}");
}

#[test]
fn a_farm_with_adaptive_chunks_survives() {
    survives("farm");
}

#[test]
fn handles_and_reference_counts_survive() {
    survives("objects");
}

#[test]
fn ranks_in_the_middle_of_a_collective_survive() {
    survives("ranks");
}

#[test]
fn ranks_go_on_from_their_safepoints() {
    survives("safepoints");
}

#[test]
fn the_safepoint_of_a_rank_is_made_or_refused_in_a_sentence() {
    let errors = river::try_run_recoverable(|vr| {
        let vms = vr.start_local(2)?;
        let texts = river::mpi::run_on(vr, &vms, |world: &Communicator| {
            assert_eq!(world.resumed::<u64>()?, None);
            let text = |of: &Communicator| of.safepoint(&1_u64).unwrap_err().to_string();
            let request = world.irecv::<u64>((world.rank() + 1) % 2, 5)?;
            let pending = text(world);
            world.send(&[7_u64], (world.rank() + 1) % 2, 5)?;
            request.wait()?;
            // The acknowledgement of its receipt names this operation.
            drop(world.issend(&[1_u8], (world.rank() + 1) % 2, 6)?);
            let dropped = text(world);
            world.recv::<u8>((world.rank() + 1) % 2, 6)?;
            world.barrier()?;
            world.safepoint(&1_u64)?;
            let other = world.dup()?;
            Ok([pending, dropped, text(world), text(&other)])
        })?;
        Ok(texts[0].clone())
    });
    let [pending, dropped, more, other] = errors.unwrap();
    assert!(pending.contains("requests are pending"), "{pending}");
    assert!(dropped.contains("whose request was dropped"), "{dropped}");
    assert!(more.contains("more communicators than the world"), "{more}");
    assert!(other.contains("made on the world"), "{other}");
}

/// The workers of a job share memory and files: a recoverable program may run it in one thread, as an effect.
#[test]
fn a_map_reduce_job_says_what_it_can_do_in_a_recoverable_program() {
    let directory = tempfile::tempdir().unwrap();
    let (input, state) = (directory.path().join("input"), directory.path().join("state"));
    std::fs::write(&input, "to be or not to be\n").unwrap();
    let body = |vr: &Vr| {
        let vms = vr.start_local(1)?;
        let error = Cluster::on(vr, &vms).unwrap_err().to_string();
        let count = || {
            let count = job(
                |line: &str, out: &mut MapContext<'_, String, u64>| {
                    line.split_whitespace().for_each(|word| out.emit(word, 1));
                },
                |word: &str, counts: &mut Values<'_, u64>, out: &mut ReduceContext<'_, String, u64>| {
                    out.emit(word, counts.sum());
                },
            );
            let outcome = Job::new(count, Input::<String>::lines([&input])).sorted().run_serial();
            outcome.and_then(|outcome| outcome.collect()).map_err(|error| error.to_string())
        };
        let words: Result<Vec<(String, u64)>, String> = vr.effect(count)?;
        let resumed = vr.checkpoint(&state)?.resumed;
        Ok((error, words.unwrap(), resumed))
    };
    let (error, words, resumed) = river::try_run_recoverable(body).unwrap();
    assert!(error.contains("a recoverable program cannot have a cluster"), "{error}");
    assert_eq!((words[0].clone(), words.len(), resumed), (("be".to_owned(), 2), 4, false));
    // The words are those that were counted before, though the file is gone.
    std::fs::remove_file(&input).unwrap();
    let (_, again, resumed) = river::restore(&state, body).unwrap();
    assert!(resumed && again == words);
}

/// Helpers share memory with the VR that started them, so they cannot be part of a checkpoint: the error names them.
#[test]
fn a_server_with_helpers_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let error = river::try_run_recoverable(|vr| {
        let vms = vr.start_local(1)?;
        let server = vr.deploy(&vms, |_| RaiServer::unrestricted().concurrent(2))?[0];
        assert_eq!(Rai::connect(vr, server).call(collatz, (27,))?, 18);
        Ok(vr.checkpoint(directory.path()).unwrap_err().to_string())
    });
    let error = error.unwrap();
    assert!(error.contains("(rai helper)") && error.contains("has to end first"), "{error}");
}
