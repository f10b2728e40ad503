//! The matrix: a sum of outer products of sparse random vectors, whose weights decrease geometrically, with a shift on
//! the diagonal. Random numbers and their order are NPB's, so that the result can be compared.

use std::ops::Range;

use super::Class;

/// The condition number's reciprocal.
const RCOND: f64 = 0.1;

/// Some rows of the matrix, in compressed form.
pub(super) struct Matrix {
    /// Where each row begins in the other two vectors; one more entry at the end.
    starts: Vec<usize>,
    columns: Vec<u32>,
    values: Vec<f64>,
}

impl Matrix {
    /// Returns the rows of a range. Every rank generates all random vectors and keeps what belongs to its rows.
    pub(super) fn rows(class: Class, range: Range<usize>) -> Self {
        let n = class.rows();
        let vectors = vectors(class);
        let mut rows: Vec<Vec<(u32, f64)>> = vec![Vec::new(); range.len()];
        let ratio = RCOND.powf(1.0 / n as f64);
        let mut weight = 1.0;
        for (i, vector) in vectors.iter().enumerate() {
            for &(row, factor) in vector {
                if !range.contains(&row) {
                    continue;
                }
                let scale = weight * factor;
                for &(column, other) in vector {
                    let mut value = other * scale;
                    if row == i && column == i {
                        value += RCOND - class.shift();
                    }
                    rows[row - range.start].push((column as u32, value));
                }
            }
            weight *= ratio;
        }
        Self::compress(rows)
    }

    fn compress(rows: Vec<Vec<(u32, f64)>>) -> Self {
        let mut matrix = Self { starts: vec![0], columns: Vec::new(), values: Vec::new() };
        for mut row in rows {
            // Stable: elements at the same position are added in the order in which NPB adds them.
            row.sort_by_key(|&(column, _)| column);
            let begin = matrix.columns.len();
            for (column, value) in row {
                if matrix.columns.len() > begin && matrix.columns.last() == Some(&column) {
                    if let Some(last) = matrix.values.last_mut() {
                        *last += value;
                    }
                } else {
                    matrix.columns.push(column);
                    matrix.values.push(value);
                }
            }
            matrix.starts.push(matrix.columns.len());
        }
        matrix
    }

    /// Sets `product` to these rows times a whole vector.
    pub(super) fn multiply(&self, vector: &[f64], product: &mut [f64]) {
        for (bounds, out) in self.starts.windows(2).zip(product) {
            let (columns, values) = (&self.columns[bounds[0]..bounds[1]], &self.values[bounds[0]..bounds[1]]);
            *out = sparse_dot(columns, values, vector);
        }
    }
}

/// The sum of `values[i] * vector[columns[i]]`, as eight partial sums, since each addition depends on the one before
/// it.
fn sparse_dot(columns: &[u32], values: &[f64], vector: &[f64]) -> f64 {
    let (column_chunks, last_columns) = columns.as_chunks::<8>();
    let (value_chunks, last_values) = values.as_chunks::<8>();
    let mut sums = [0.0; 8];
    for (columns, values) in column_chunks.iter().zip(value_chunks) {
        for ((sum, &column), value) in sums.iter_mut().zip(columns).zip(values) {
            *sum += value * vector[column as usize];
        }
    }
    let last = last_columns.iter().zip(last_values).map(|(&column, value)| value * vector[column as usize]);
    last.sum::<f64>() + sums.iter().sum::<f64>()
}

/// NPB's `makea`: for each row a sparse vector, as (index, value).
fn vectors(class: Class) -> Vec<Vec<(usize, f64)>> {
    let (n, nonzeros) = (class.rows(), class.nonzeros());
    let power = n.next_power_of_two();
    let mut random = Random::new();
    // The benchmark draws one number before it begins.
    random.next();
    let vector = |i: usize| {
        let mut vector: Vec<(usize, f64)> = Vec::with_capacity(nonzeros + 1);
        while vector.len() < nonzeros {
            let value = random.next();
            let index = (power as f64 * random.next()) as usize;
            if index < n && vector.iter().all(|&(other, _)| other != index) {
                vector.push((index, value));
            }
        }
        match vector.iter_mut().find(|(index, _)| *index == i) {
            Some((_, value)) => *value = 0.5,
            None => vector.push((i, 0.5)),
        }
        vector
    };
    (0..n).map(vector).collect()
}

/// NPB's generator: x := 5^13 x mod 2^46.
struct Random(u64);

impl Random {
    fn new() -> Self {
        Self(314_159_265)
    }

    /// Returns a number between 0 and 1.
    fn next(&mut self) -> f64 {
        // Only overflow beyond the 46 bits that are kept is lost.
        self.0 = self.0.wrapping_mul(1_220_703_125) & ((1 << 46) - 1);
        self.0 as f64 / (1_u64 << 46) as f64
    }
}
