//! The MPI examples as a user runs them: on VMs that were found, and on none.

use std::process::Output;

use crate::scene::Scene;

fn run(scene: &Scene, name: &str, args: &[&str]) -> String {
    text(&scene.example(name, args).output().unwrap())
}

fn text(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{output:?}");
    text
}

#[test]
fn hello_on_as_many_ranks_as_river_run_says() {
    let scene = Scene::new();
    // The variable that `river run -n 3` sets.
    let output = scene.example("mpi_hello", [""; 0]).env("RIVER_VMS", "3").output().unwrap();
    let text = text(&output);
    assert_eq!(text.lines().filter(|line| line.contains("Hello from rank")).count(), 3, "{text}");
    assert!(text.contains("From rank 2: 200"), "{text}");
}

#[test]
fn the_transposed_matrix() {
    let text = run(&Scene::new(), "mpi_transpose", &["--rows", "2", "--columns", "3"]);
    assert!(text.ends_with("rank 1 received:\n   0   10\n   1   11\n   2   12\n"), "{text}");
}

#[test]
fn heat_does_not_depend_on_the_number_of_ranks() {
    let scene = Scene::new();
    let mean = |ranks: &str| {
        let text = run(&scene, "mpi_heat", &["-n", ranks, "--size", "20", "--steps", "50"]);
        text.split("temperature is ").nth(1).map(str::trim).map(str::to_owned).unwrap()
    };
    let one = mean("1");
    assert_eq!((mean("2"), mean("3"), mean("6")), (one.clone(), one.clone(), one));
}

#[test]
fn heat_refuses_more_blocks_than_there_are_points() {
    let output = Scene::new().example("mpi_heat", ["-n", "3", "--size", "1"]).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && error.contains("use fewer ranks"), "{output:?}");
}

#[test]
fn the_solution_is_right_whoever_dies_and_when() {
    let scene = Scene::new();
    for (ranks, kill, at) in [("2", "1", "0"), ("4", "2", "10"), ("4", "3", "37")] {
        let text = run(&scene, "mpi_survive", &["-n", ranks, "--kill", kill, "--at", at]);
        let left = ranks.parse::<u16>().unwrap() - 1;
        let expected = format!("{left} of {ranks} ranks are left; after 38 steps the solution is right");
        assert!(text.contains(&expected), "{text}");
    }
}

#[test]
fn cg_is_verified_and_prints_one_object() {
    let scene = Scene::new();
    for args in [&["--ranks", "2"][..], &["--serial"], &["--ranks", "3", "--processes"]] {
        let text = run(&scene, "cg", &[args, &["--class", "S", "--json"]].concat());
        let report: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&report["class"], &report["verified"]), (&"S".into(), &true.into()));
        assert!((report["zeta"].as_f64().unwrap() - 8.597_177_507_864_8).abs() < 1e-9);
    }
}
