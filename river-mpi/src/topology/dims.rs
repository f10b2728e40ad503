//! Balanced grids.

use crate::error::{MpiError, Result};

/// Replaces the dimensions that are 0 so that the product of all is `ranks`; the new ones are as equal as possible, in
/// descending order (MPI 1.3, section 6.5.2).
///
/// ```
/// assert_eq!(river_mpi::dims_create(12, &[0, 0])?, [4, 3]);
/// assert_eq!(river_mpi::dims_create(12, &[0, 2, 0])?, [3, 2, 2]);
/// # Ok::<(), river_mpi::MpiError>(())
/// ```
///
/// # Errors
/// [`MpiError::Dims`] if `ranks` is not a multiple of the product of the given dimensions.
pub fn dims_create(ranks: usize, dims: &[usize]) -> Result<Vec<usize>> {
    let given =
        dims.iter().filter(|&&dim| dim > 0).try_fold(1_usize, |product, &dim| product.checked_mul(dim));
    let impossible = || MpiError::Dims(format!("{ranks} ranks cannot be a grid of dimensions {dims:?}"));
    let given = given.filter(|&given| ranks > 0 && ranks.is_multiple_of(given)).ok_or_else(impossible)?;
    let free = dims.iter().filter(|&&dim| dim == 0).count();
    let left = ranks / given;
    if free == 0 {
        return if left == 1 { Ok(dims.to_vec()) } else { Err(impossible()) };
    }
    let mut best = balanced(left, free, left).ok_or_else(impossible)?.into_iter();
    Ok(dims.iter().map(|&dim| if dim == 0 { best.next().unwrap_or(1) } else { dim }).collect())
}

/// Returns `n` as a product of `count` factors up to `limit`, in descending order: the product with the smallest largest
/// factor, then the smallest second, and so on.
fn balanced(n: usize, count: usize, limit: usize) -> Option<Vec<usize>> {
    if count == 1 {
        return (n <= limit).then(|| vec![n]);
    }
    (1..=limit.min(n)).filter(|largest| n.is_multiple_of(*largest)).find_map(|largest| {
        let mut factors = vec![largest];
        factors.extend(balanced(n / largest, count - 1, largest)?);
        Some(factors)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_standards_examples_and_others() {
        assert_eq!(dims_create(6, &[0, 0]).unwrap(), [3, 2]);
        assert_eq!(dims_create(7, &[0, 0]).unwrap(), [7, 1]);
        assert_eq!(dims_create(6, &[0, 3, 0]).unwrap(), [2, 3, 1]);
        assert!(dims_create(7, &[0, 3, 0]).is_err());
        assert_eq!(dims_create(36, &[0, 0, 0]).unwrap(), [4, 3, 3]);
        assert_eq!(dims_create(4, &[2, 2]).unwrap(), [2, 2]);
        assert!(dims_create(4, &[2, 1]).is_err());
        assert_eq!(dims_create(1, &[]).unwrap(), [0_usize; 0]);
    }
}
