//! Least squares from streamed second moments.
//!
//! The fit `y ≈ W x + b` over all pixels of all images needs only sums: of `x`, `y`, `xᵀx` and `xᵀy`. They are
//! gathered per image in f64, so no `[pixels, channels]` matrix of the whole set is ever made.
//!
//! The system is solved around the means: with `Σ = XᵀX − n x̄x̄ᵀ` and `Γ = XᵀY − n x̄ȳᵀ`,
//!
//! ```text
//! (Σ + λ·mean(diag Σ)·I) Wᵀ = Γ,   b = ȳ − W x̄
//! ```
//!
//! which is the ridge solution with an unpunished bias (SN-Net §2.5). A channel that never varies, or that the
//! channels before it explain to twelve digits, has no pivot: it is left out with weight 0, so dead and doubled
//! channels are harmless even without ridge.
//!
//! The Cholesky factorisation is our own: families have hundreds of channels at most, where thirty lines take
//! milliseconds, and faer would double the build of the crate for them.

use ndarray::{Array1, Array2, ArrayView2, Axis};

/// A pivot below this share of its diagonal entry is rounding noise: f64 sums carry 15 digits.
const PIVOT_SHARE: f64 = 1e-12;

/// Sums over pixels of two activations `x` and `y`.
#[derive(Clone, Debug)]
pub struct Moments {
    /// Pixels.
    pub rows: u64,
    /// Sum of x, `[I]`.
    x: Array1<f64>,
    /// Sum of y, `[O]`.
    y: Array1<f64>,
    /// `XᵀX`, `[I, I]`.
    xx: Array2<f64>,
    /// `XᵀY`, `[I, O]`.
    xy: Array2<f64>,
}

/// `y = W x + b`.
#[derive(Clone, Debug, PartialEq)]
pub struct Linear {
    /// `[O, I]`.
    pub weights: Array2<f64>,
    /// `[O]`.
    pub bias: Array1<f64>,
}

impl Moments {
    /// Sums over nothing.
    #[must_use]
    pub fn zero(inputs: usize, outputs: usize) -> Self {
        Self {
            rows: 0,
            x: Array1::zeros(inputs),
            y: Array1::zeros(outputs),
            xx: Array2::zeros((inputs, inputs)),
            xy: Array2::zeros((inputs, outputs)),
        }
    }

    /// Sums over the pixels of `x`, `[pixels, I]`, and `y`, `[pixels, O]`.
    ///
    /// # Panics
    /// If the pixel counts differ.
    #[must_use]
    pub fn of(x: ArrayView2<f32>, y: ArrayView2<f32>) -> Self {
        let x = x.mapv(f64::from);
        let y = y.mapv(f64::from);
        Self {
            rows: x.nrows() as u64,
            x: x.sum_axis(Axis(0)),
            y: y.sum_axis(Axis(0)),
            xx: x.t().dot(&x),
            xy: x.t().dot(&y),
        }
    }

    /// Adds the sums of other pixels.
    pub fn add(&mut self, other: &Self) {
        self.rows += other.rows;
        self.x += &other.x;
        self.y += &other.y;
        self.xx += &other.xx;
        self.xy += &other.xy;
    }

    /// Least squares with ridge `ridge · mean(diag Σ)`. Zero weights and the mean of y when x never varies.
    #[must_use]
    pub fn solve(&self, ridge: f64) -> Linear {
        let rows = self.rows.max(1) as f64;
        let (mean_x, mean_y) = (&self.x / rows, &self.y / rows);
        let outer =
            |a: &Array1<f64>, b: &Array1<f64>| Array2::from_shape_fn((a.len(), b.len()), |(i, j)| a[i] * b[j] * rows);
        let mut covariance = &self.xx - &outer(&mean_x, &mean_x);
        let cross = &self.xy - &outer(&mean_x, &mean_y);
        // Sums of squares, not central ones: they carry the rounding error that a pivot is compared with.
        let scale = self.xx.diag().to_owned();
        let penalty = ridge * covariance.diag().mean().unwrap_or(0.0).max(0.0);
        covariance.diag_mut().mapv_inplace(|value| value + penalty);
        let weights = solve_positive(covariance, &scale, cross).reversed_axes();
        let bias = &mean_y - &weights.dot(&mean_x);
        Linear { weights, bias }
    }
}

/// Solves `A Z = B` for symmetric positive semidefinite A `[I, I]`, B `[I, O]`. Rows of Z whose pivot is below
/// `PIVOT_SHARE · scale` are 0.
fn solve_positive(mut a: Array2<f64>, scale: &Array1<f64>, mut b: Array2<f64>) -> Array2<f64> {
    let n = a.nrows();
    let mut alive = vec![true; n];
    // A = L Lᵀ, L in the lower triangle.
    for j in 0..n {
        for k in 0..j {
            let factor = a[[j, k]];
            for i in j..n {
                a[[i, j]] -= a[[i, k]] * factor;
            }
        }
        alive[j] = a[[j, j]] > PIVOT_SHARE * scale[j];
        let pivot = if alive[j] { a[[j, j]].sqrt() } else { f64::INFINITY };
        for i in j + 1..n {
            a[[i, j]] /= pivot;
        }
        a[[j, j]] = pivot;
    }
    for column in 0..b.ncols() {
        for i in 0..n {
            let known: f64 = (0..i).map(|k| a[[i, k]] * b[[k, column]]).sum();
            b[[i, column]] = if alive[i] { (b[[i, column]] - known) / a[[i, i]] } else { 0.0 };
        }
        for i in (0..n).rev() {
            let known: f64 = (i + 1..n).map(|k| a[[k, i]] * b[[k, column]]).sum();
            b[[i, column]] = if alive[i] { (b[[i, column]] - known) / a[[i, i]] } else { 0.0 };
        }
    }
    b
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers in -1..1 from a linear congruential generator (Knuth's MMIX constants).
    fn random(rows: usize, columns: usize, seed: u64) -> Array2<f32> {
        let mut state = seed;
        Array2::from_shape_simple_fn((rows, columns), || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        })
    }

    fn apply(fit: &Linear, x: &Array2<f32>) -> Array2<f64> {
        x.mapv(f64::from).dot(&fit.weights.t()) + &fit.bias
    }

    fn largest(a: impl IntoIterator<Item = f64>) -> f64 {
        a.into_iter().fold(0.0, |most, value| most.max(value.abs()))
    }

    #[test]
    fn recovers_a_planted_map() {
        // Mean far from 0, as after a ReLU.
        let x = random(500, 12, 1).mapv(|value| value + 3.0);
        let (w, b) = (random(12, 7, 2), random(1, 7, 3));
        let y = x.dot(&w) + &b;
        let fit = Moments::of(x.view(), y.view()).solve(1e-9);
        assert!(largest(fit.weights - w.t().mapv(f64::from)) < 1e-5);
        assert!(largest(fit.bias - b.row(0).mapv(f64::from)) < 1e-4);
    }

    #[test]
    fn residual_is_orthogonal_to_inputs_and_ones() {
        let (x, y) = (random(400, 9, 4), random(400, 5, 5));
        let fit = Moments::of(x.view(), y.view()).solve(0.0);
        let residual = y.mapv(f64::from) - apply(&fit, &x);
        assert!(largest(x.mapv(f64::from).t().dot(&residual)) < 1e-9);
        assert!(largest(residual.sum_axis(Axis(0))) < 1e-9);
    }

    #[test]
    fn survives_dead_constant_and_doubled_channels() {
        for ridge in [0.0, 1e-6] {
            let mut x = random(300, 6, 6);
            x.column_mut(1).fill(0.0);
            x.column_mut(3).fill(2.5);
            let copy = x.column(0).to_owned();
            x.column_mut(4).assign(&copy);
            let mut y = x.dot(&random(6, 3, 7));
            y.column_mut(2).fill(-1.0);
            let fit = Moments::of(x.view(), y.view()).solve(ridge);
            assert!(fit.weights.iter().chain(&fit.bias).all(|value| value.is_finite()), "ridge {ridge}");
            assert!(fit.weights.column(1).iter().all(|value| *value == 0.0), "ridge {ridge}");
            assert!(largest(apply(&fit, &x) - y.mapv(f64::from)) < 1e-4, "ridge {ridge}");
        }
        let nothing = Moments::zero(3, 2).solve(1e-6);
        assert!(nothing.weights.iter().chain(&nothing.bias).all(|value| *value == 0.0));
    }

    #[test]
    fn streaming_equals_one_shot() {
        let (x, y) = (random(320, 8, 8), random(320, 4, 9));
        let mut streamed = Moments::zero(8, 4);
        for start in (0..320).step_by(64) {
            let part = |values: &Array2<f32>| {
                let rows = ndarray::Slice::from(start..start + 64);
                values.slice_axis(ndarray::Axis(0), rows).to_owned()
            };
            streamed.add(&Moments::of(part(&x).view(), part(&y).view()));
        }
        let (a, b) = (streamed.solve(1e-6), Moments::of(x.view(), y.view()).solve(1e-6));
        assert_eq!(streamed.rows, 320);
        assert!(largest(a.weights - b.weights) < 1e-12);
        assert!(largest(a.bias - b.bias) < 1e-12);
    }
}
