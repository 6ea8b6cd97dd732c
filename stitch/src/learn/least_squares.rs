//! Least squares from streamed second moments.
//!
//! The fit `y ≈ W x + b` over all pixels of all images needs only sums: of `x`, `y`, `xᵀx` and `xᵀy`. They are
//! gathered in f64, so no `[pixels, channels]` matrix of the whole set is ever made.
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
//! The squared error of any map on other pixels needs no more than their sums either, so a ridge is chosen without a
//! second look at them.
//!
//! The Cholesky factorisation is our own: families have hundreds of channels at most, where thirty lines take
//! milliseconds, and faer would double the build of the crate for them.

use ndarray::{Array1, Array2, ArrayView2, Axis};

/// A pivot below this share of its diagonal entry is rounding noise: f64 sums carry 15 digits.
const PIVOT_SHARE: f64 = 1e-12;

/// Sums over pixels of an activation `x`.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// Pixels.
    pub rows: u64,
    /// Sum of x, `[I]`.
    x: Array1<f64>,
    /// `XᵀX`, `[I, I]`.
    xx: Array2<f64>,
}

/// Sums over pixels of an activation `y` and of its products with `x`.
#[derive(Clone, Debug)]
pub struct Targets {
    /// Sum of y, `[O]`.
    y: Array1<f64>,
    /// Sum of `|y|²`.
    yy: f64,
    /// `XᵀY`, `[I, O]`.
    xy: Array2<f64>,
}

/// Sums over pixels of two activations `x` and `y`.
#[derive(Clone, Debug)]
pub struct Moments {
    /// Of x.
    pub inputs: Inputs,
    /// Of y.
    pub targets: Targets,
}

/// `y = W x + b`.
#[derive(Clone, Debug, PartialEq)]
pub struct Linear {
    /// `[O, I]`.
    pub weights: Array2<f64>,
    /// `[O]`.
    pub bias: Array1<f64>,
}

impl Inputs {
    /// Sums over nothing.
    #[must_use]
    pub fn zero(inputs: usize) -> Self {
        Self { rows: 0, x: Array1::zeros(inputs), xx: Array2::zeros((inputs, inputs)) }
    }

    /// Sums over the pixels of `x`, `[pixels, I]`.
    #[must_use]
    pub fn of(x: ArrayView2<f64>) -> Self {
        Self { rows: x.nrows() as u64, x: x.sum_axis(Axis(0)), xx: x.t().dot(&x) }
    }

    /// Adds the sums of other pixels.
    pub fn add(&mut self, other: &Self) {
        self.rows += other.rows;
        self.x += &other.x;
        self.xx += &other.xx;
    }

    /// Mean of x; 0 where there is no pixel.
    #[must_use]
    pub fn mean(&self) -> Array1<f64> {
        &self.x / self.rows.max(1) as f64
    }

    /// `XᵀX` around the mean.
    fn covariance(&self) -> Array2<f64> {
        let mean = self.mean();
        &self.xx - &outer(&mean, &self.x)
    }

    /// Channels that never vary, or that the ones before them explain.
    #[must_use]
    pub fn dependent(&self) -> usize {
        let factor = Factor::of(self.covariance(), &self.xx.diag().to_owned());
        factor.alive.iter().filter(|alive| !**alive).count()
    }
}

impl Targets {
    /// Sums over nothing.
    #[must_use]
    pub fn zero(inputs: usize, outputs: usize) -> Self {
        Self { y: Array1::zeros(outputs), yy: 0.0, xy: Array2::zeros((inputs, outputs)) }
    }

    /// Sums over the pixels of `x`, `[pixels, I]`, and `y`, `[pixels, O]`.
    ///
    /// # Panics
    /// If the pixel counts differ.
    #[must_use]
    pub fn of(x: ArrayView2<f64>, y: ArrayView2<f64>) -> Self {
        Self { y: y.sum_axis(Axis(0)), yy: y.iter().map(|y| y * y).sum(), xy: x.t().dot(&y) }
    }

    /// Mean of y over so many pixels.
    #[must_use]
    pub fn mean(&self, rows: u64) -> Array1<f64> {
        &self.y / rows.max(1) as f64
    }

    /// Adds the sums of other pixels.
    pub fn add(&mut self, other: &Self) {
        self.y += &other.y;
        self.yy += other.yy;
        self.xy += &other.xy;
    }
}

impl Moments {
    /// Sums over the pixels of `x`, `[pixels, I]`, and `y`, `[pixels, O]`.
    ///
    /// # Panics
    /// If the pixel counts differ.
    #[must_use]
    pub fn of(x: ArrayView2<f64>, y: ArrayView2<f64>) -> Self {
        Self { inputs: Inputs::of(x), targets: Targets::of(x, y) }
    }

    /// Adds the sums of other pixels.
    pub fn add(&mut self, other: &Self) {
        self.inputs.add(&other.inputs);
        self.targets.add(&other.targets);
    }

    /// Least squares with ridge `ridge · mean(diag Σ)`. Zero weights and the mean of y when x never varies.
    #[must_use]
    pub fn solve(&self, ridge: f64) -> Linear {
        let Self { inputs, targets } = self;
        let (mean_x, mean_y) = (inputs.mean(), targets.mean(inputs.rows));
        let mut covariance = inputs.covariance();
        let cross = &targets.xy - &outer(&mean_x, &targets.y);
        // Sums of squares, not central ones: they carry the rounding error that a pivot is compared with.
        let scale = inputs.xx.diag().to_owned();
        let penalty = ridge * covariance.diag().mean().unwrap_or(0.0).max(0.0);
        covariance.diag_mut().mapv_inplace(|value| value + penalty);
        let weights = Factor::of(covariance, &scale).solve(cross).reversed_axes();
        let bias = &mean_y - &weights.dot(&mean_x);
        Linear { weights, bias }
    }

    /// Sum over the pixels of `|y − W x − b|²`.
    #[must_use]
    pub fn squared_error(&self, map: &Linear) -> f64 {
        let Self { inputs, targets } = self;
        let Linear { weights, bias } = map;
        let of_weights = (&weights.dot(&inputs.xx) * weights).sum();
        let of_bias = inputs.rows as f64 * bias.dot(bias) + 2.0 * bias.dot(&weights.dot(&inputs.x));
        let of_both = (weights * &targets.xy.t()).sum() + bias.dot(&targets.y);
        targets.yy + of_weights + of_bias - 2.0 * of_both
    }

    /// Sum over the pixels of `|y − ȳ|²`.
    #[must_use]
    pub fn variation(&self) -> f64 {
        self.targets.yy - self.targets.y.dot(&self.targets.y) / self.inputs.rows.max(1) as f64
    }

    /// Sum over the pixels of `|W (x − x̄)|²`.
    #[must_use]
    pub fn mapped_variation(&self, weights: &Array2<f64>) -> f64 {
        (&weights.dot(&self.inputs.covariance()) * weights).sum()
    }
}

fn outer(a: &Array1<f64>, b: &Array1<f64>) -> Array2<f64> {
    Array2::from_shape_fn((a.len(), b.len()), |(i, j)| a[i] * b[j])
}

/// `A = L Lᵀ` of a symmetric positive semidefinite A, by rows.
struct Factor {
    /// In the lower triangle.
    l: Array2<f64>,
    /// Rows with a pivot; the others are left out.
    alive: Vec<bool>,
}

impl Factor {
    /// A pivot below `PIVOT_SHARE · scale` is none.
    fn of(mut a: Array2<f64>, scale: &Array1<f64>) -> Self {
        let mut alive = vec![true; a.nrows()];
        for i in 0..a.nrows() {
            for j in 0..=i {
                let start = |row: usize| a.row(row).split_at(Axis(0), j).0;
                let known = start(i).dot(&start(j));
                let left = a[[i, j]] - known;
                if i == j {
                    alive[i] = left > PIVOT_SHARE * scale[i];
                    a[[i, i]] = if alive[i] { left.sqrt() } else { f64::INFINITY };
                } else {
                    a[[i, j]] = left / a[[j, j]];
                }
            }
        }
        Self { l: a, alive }
    }

    /// Solves `A Z = B`, B `[I, O]`; rows of Z without a pivot are 0.
    fn solve(&self, mut b: Array2<f64>) -> Array2<f64> {
        let n = b.nrows();
        for i in 0..n {
            let (known, mut rest) = b.view_mut().split_at(Axis(0), i);
            let mut row = rest.row_mut(0);
            for (k, known) in known.rows().into_iter().enumerate() {
                row.scaled_add(-self.l[[i, k]], &known);
            }
            row.mapv_inplace(|value| if self.alive[i] { value / self.l[[i, i]] } else { 0.0 });
        }
        for i in (0..n).rev() {
            let (mut rest, known) = b.view_mut().split_at(Axis(0), i + 1);
            let mut row = rest.row_mut(i);
            for (k, known) in known.rows().into_iter().enumerate() {
                row.scaled_add(-self.l[[i + 1 + k, i]], &known);
            }
            row.mapv_inplace(|value| if self.alive[i] { value / self.l[[i, i]] } else { 0.0 });
        }
        b
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers in -1..1 from a linear congruential generator (Knuth's MMIX constants).
    fn random(rows: usize, columns: usize, seed: u64) -> Array2<f64> {
        let mut state = seed;
        Array2::from_shape_simple_fn((rows, columns), || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f64 / f64::from(1 << 23) - 1.0
        })
    }

    fn apply(fit: &Linear, x: &Array2<f64>) -> Array2<f64> {
        x.dot(&fit.weights.t()) + &fit.bias
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
        assert!(largest(fit.weights - w.t()) < 1e-5);
        assert!(largest(fit.bias - b.row(0)) < 1e-4);
    }

    #[test]
    fn residual_is_orthogonal_to_inputs_and_ones() {
        let (x, y) = (random(400, 9, 4), random(400, 5, 5));
        let fit = Moments::of(x.view(), y.view()).solve(0.0);
        let residual = &y - apply(&fit, &x);
        assert!(largest(x.t().dot(&residual)) < 1e-9);
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
            let moments = Moments::of(x.view(), y.view());
            assert_eq!(moments.inputs.dependent(), 3);
            let fit = moments.solve(ridge);
            assert!(fit.weights.iter().chain(&fit.bias).all(|value| value.is_finite()), "ridge {ridge}");
            assert!(fit.weights.column(1).iter().all(|value| *value == 0.0), "ridge {ridge}");
            assert!(largest(apply(&fit, &x) - &y) < 1e-4, "ridge {ridge}");
        }
        let nothing = Moments { inputs: Inputs::zero(3), targets: Targets::zero(3, 2) }.solve(1e-6);
        assert!(nothing.weights.iter().chain(&nothing.bias).all(|value| *value == 0.0));
    }

    #[test]
    fn streaming_equals_one_shot() {
        let (x, y) = (random(320, 8, 8), random(320, 4, 9));
        let mut streamed = Moments { inputs: Inputs::zero(8), targets: Targets::zero(8, 4) };
        for start in (0..320).step_by(64) {
            let part = |values: &Array2<f64>| {
                let rows = ndarray::Slice::from(start..start + 64);
                values.slice_axis(ndarray::Axis(0), rows).to_owned()
            };
            streamed.add(&Moments::of(part(&x).view(), part(&y).view()));
        }
        let (a, b) = (streamed.solve(1e-6), Moments::of(x.view(), y.view()).solve(1e-6));
        assert_eq!(streamed.inputs.rows, 320);
        assert!(largest(a.weights - b.weights) < 1e-12);
        assert!(largest(a.bias - b.bias) < 1e-12);
    }

    #[test]
    fn errors_from_sums_are_those_of_the_pixels() {
        let (x, y) = (random(200, 5, 10).mapv(|value| value + 2.0), random(200, 3, 11));
        let map = Moments::of(random(60, 5, 12).view(), random(60, 3, 13).view()).solve(0.1);
        let moments = Moments::of(x.view(), y.view());
        let squares = |values: Array2<f64>| values.iter().map(|value| value * value).sum::<f64>();
        let around = |values: &Array2<f64>| values - &values.mean_axis(Axis(0)).expect("rows");
        for (found, expected) in [
            (moments.squared_error(&map), squares(&y - apply(&map, &x))),
            (moments.variation(), squares(around(&y))),
            (moments.mapped_variation(&map.weights), squares(around(&x).dot(&map.weights.t()))),
        ] {
            assert!((found - expected).abs() < 1e-9 * expected, "{found} {expected}");
        }
    }

    /// `[1 X] Z = Y` by orthogonal columns (modified Gram-Schmidt, twice), which never makes `XᵀX`.
    fn reference(x: &Array2<f64>, y: &Array2<f64>) -> Array2<f64> {
        let (rows, columns) = (x.nrows(), x.ncols() + 1);
        let mut q = Array2::ones((rows, columns));
        q.slice_axis_mut(Axis(1), (1..).into()).assign(x);
        let mut r = Array2::<f64>::zeros((columns, columns));
        for j in 0..columns {
            for _ in 0..2 {
                for k in 0..j {
                    let part = q.column(k).dot(&q.column(j));
                    let other = q.column(k).to_owned();
                    q.column_mut(j).scaled_add(-part, &other);
                    r[[k, j]] += part;
                }
            }
            r[[j, j]] = q.column(j).dot(&q.column(j)).sqrt();
            let length = r[[j, j]];
            q.column_mut(j).mapv_inplace(|value| value / length);
        }
        let mut z = q.t().dot(y);
        for j in (0..columns).rev() {
            for k in j + 1..columns {
                let known = z.row(k).to_owned();
                z.row_mut(j).scaled_add(-r[[j, k]], &known);
            }
            let length = r[[j, j]];
            z.row_mut(j).mapv_inplace(|value| value / length);
        }
        z
    }

    #[test]
    fn equals_a_reference_solve() {
        // Channels of unlike sizes, far from 0 and alike one another, as features are.
        let noise = random(3000, 48, 14);
        let mut x = noise.dot(&random(48, 48, 15)) + 4.0;
        x.columns_mut().into_iter().enumerate().for_each(|(j, mut column)| column *= 1.0 + j as f64 / 4.0);
        let y = random(3000, 32, 16) + x.dot(&random(48, 32, 17));
        let (found, expected) = (Moments::of(x.view(), y.view()).solve(0.0), reference(&x, &y));
        let size = largest(expected.iter().copied());
        assert!(largest(&found.weights.t() - &expected.slice_axis(Axis(0), (1..).into())) < 1e-6 * size);
        assert!(largest(&found.bias - &expected.row(0)) < 1e-6 * size);
    }
}
