//! Heat in a plate: the grid is cut into blocks, one per rank, and in every step neighbours exchange their edges (halo
//! exchange), with a derived datatype for the columns.
//!
//! ```text
//! cargo run --release --example mpi_heat -- -n 4 --size 200 --steps 500
//! ```

use clap::Parser;
use river::mpi::{self, Cartesian, Communicator, Datatype, MAX, MpiError, SUM, dims_create};

/// Compute the steady state of a plate that is hot at its upper edge, by Jacobi's method.
#[derive(Parser)]
struct Args {
    /// How many ranks [default: as many as `river run -n` says, or VMs can be found, or there are cores]
    #[arg(long, short = 'n', value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    ranks: Option<u16>,
    /// Points on a side
    #[arg(long, value_name = "POINTS", default_value = "100", value_parser = clap::value_parser!(u16).range(1..))]
    size: u16,
    /// Maximum number of steps
    #[arg(long, value_name = "N", default_value = "1000")]
    steps: u32,
}

/// A rank's block of the plate, with a border of one point that belongs to its neighbours or to the edge.
struct Block {
    rows: usize,
    columns: usize,
    points: Vec<f64>,
}

impl Block {
    fn at(&self, row: usize, column: usize) -> usize {
        row * (self.columns + 2) + column
    }

    /// Sends the edges to the four neighbours and receives theirs into the border.
    fn exchange(&mut self, grid: &Cartesian) -> mpi::Result {
        let number = Datatype::of::<f64>();
        let row = number.contiguous(self.columns).commit();
        let column = number.vector(self.rows, 1, (self.columns + 2).cast_signed()).commit();
        let (last_row, last_column) = (self.rows, self.columns);
        // Dimension, direction, shape, start of the edge, start of the opposite border.
        for (dimension, by, shape, edge, border) in [
            (0, -1, &row, (1, 1), (last_row + 1, 1)),
            (0, 1, &row, (last_row, 1), (0, 1)),
            (1, -1, &column, (1, 1), (1, last_column + 1)),
            (1, 1, &column, (1, last_column), (1, 0)),
        ] {
            let (source, dest) = grid.shift(dimension, by)?;
            let (edge, border) = (self.at(edge.0, edge.1), self.at(border.0, border.1));
            let sent = grid.isend_as(&self.points[edge..], 1, shape, dest, 0)?;
            grid.recv_as(&mut self.points[border..], 1, shape, source, 0)?;
            sent.wait()?;
        }
        Ok(())
    }

    /// Performs one step; returns the largest change.
    fn step(&mut self) -> f64 {
        let mut next = self.points.clone();
        let mut largest = 0.0_f64;
        for row in 1..=self.rows {
            for column in 1..=self.columns {
                let here = self.at(row, column);
                let width = self.columns + 2;
                let [up, down] = [self.points[here - width], self.points[here + width]];
                next[here] = 0.25 * (up + down + self.points[here - 1] + self.points[here + 1]);
                largest = largest.max((next[here] - self.points[here]).abs());
            }
        }
        self.points = next;
        largest
    }
}

/// Returns the number of steps, and the mean temperature at the end.
fn rank(world: &Communicator) -> river::Result<(u32, f64)> {
    let args = Args::parse();
    let size = usize::from(args.size);
    let dims = dims_create(world.size(), &[0, 0])?;
    if dims.iter().any(|&blocks| blocks > size) {
        let [rows, columns] = [dims[0], dims[1]];
        let message = format!(
            "{rows} x {columns} blocks do not fit a plate of {size} x {size} points: use fewer ranks"
        );
        return Err(river::VrError::msg(message));
    }
    let grid = world.cart_create(&dims, &[false, false], true)?.ok_or(MpiError::Stopped)?;
    let place = grid.coords(grid.rank())?;
    let part = |dimension: usize| {
        let (i, parts) = (place[dimension], dims[dimension]);
        (i + 1) * size / parts - i * size / parts
    };
    let (rows, columns) = (part(0), part(1));
    let mut block = Block { rows, columns, points: vec![0.0; (rows + 2) * (columns + 2)] };
    if place[0] == 0 {
        // The upper edge of the plate is hot.
        block.points[..columns + 2].fill(100.0);
    }
    let mut steps = 0;
    let mut change = [f64::MAX];
    while steps < args.steps && change[0] > 1e-4 {
        block.exchange(&grid)?;
        change = [block.step()];
        grid.allreduce_in_place(&mut change, &MAX)?;
        steps += 1;
    }
    let inner = (1..=rows).flat_map(|row| (1..=columns).map(move |column| (row, column)));
    let mut sum = [inner.map(|(row, column)| block.points[block.at(row, column)]).sum::<f64>()];
    grid.allreduce_in_place(&mut sum, &SUM)?;
    Ok((steps, sum[0] / (size * size) as f64))
}

fn program(args: &Args) -> river::Result {
    let results = mpi::try_run(args.ranks.map(usize::from), rank)?;
    let (steps, mean) = results[0];
    println!("{} ranks, {steps} steps: the mean temperature is {mean:.4}", results.len());
    Ok(())
}

fn main() -> river::ExitCode {
    river::become_host_if_asked();
    match program(&Args::parse()) {
        Ok(()) => river::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            river::ExitCode::FAILURE
        }
    }
}
