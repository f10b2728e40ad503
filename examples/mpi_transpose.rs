//! A matrix transposed by sending it: the datatype defines in which order its elements are sent (MPI 1.3, example
//! 3.32).
//!
//! ```text
//! cargo run --release --example mpi_transpose
//! ```

use clap::Parser;
use river::mpi::{self, Communicator, Datatype};

/// Send a matrix from rank 0 to rank 1, which receives it transposed; print both.
#[derive(Parser)]
struct Args {
    /// Rows of the matrix
    #[arg(long, value_name = "N", default_value = "3", value_parser = clap::value_parser!(u16).range(1..=99))]
    rows: u16,
    /// Columns of the matrix
    #[arg(long, value_name = "N", default_value = "4", value_parser = clap::value_parser!(u16).range(1..=99))]
    columns: u16,
}

/// Runs on both ranks; the result is what rank 1 has received.
fn transpose(world: &Communicator) -> river::Result<Vec<f64>> {
    let args = Args::parse();
    let (rows, columns) = (usize::from(args.rows), usize::from(args.columns));
    if world.rank() == 0 {
        let number = Datatype::of::<f64>();
        let column = number.vector(rows, 1, columns.cast_signed());
        // The columns one after the other: each begins one element later.
        let transposed = column.hvector(columns, 1, number.extent()).commit();
        world.send_as(&matrix(rows, columns), 1, &transposed, 1, 0)?;
        Ok(Vec::new())
    } else {
        let mut received = vec![0.0; rows * columns];
        world.recv_into(&mut received, 0, 0)?;
        Ok(received)
    }
}

fn matrix(rows: usize, columns: usize) -> Vec<f64> {
    (0..rows).flat_map(|row| (0..columns).map(move |column| (10 * row + column) as f64)).collect()
}

fn print(title: &str, matrix: &[f64], columns: usize) {
    println!("{title}");
    for row in matrix.chunks(columns) {
        let row: Vec<String> = row.iter().map(|number| format!("{number:4}")).collect();
        println!("{}", row.join(" "));
    }
}

fn program() -> river::Result {
    let args = Args::parse();
    let (rows, columns) = (usize::from(args.rows), usize::from(args.columns));
    let received = mpi::try_run(2, transpose)?.swap_remove(1);
    print("rank 0 sent:", &matrix(rows, columns), columns);
    print("rank 1 received:", &received, rows);
    Ok(())
}

fn main() -> river::ExitCode {
    river::become_host_if_asked();
    match program() {
        Ok(()) => river::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            river::ExitCode::FAILURE
        }
    }
}
