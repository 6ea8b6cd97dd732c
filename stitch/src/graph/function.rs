//! A function of one number, applied to every element of a map: what the integers will have as a table.

use super::Clamp;

/// A function of `x`, as it was composed in the file: GELU is `x · (1 + erf(x / √2)) · ½` in any order.
#[derive(Clone, Debug, PartialEq)]
pub enum Function {
    /// `x`.
    Argument,
    /// A number.
    Constant(f32),
    /// Gauss' error function.
    Erf(Box<Function>),
    /// `1 / (1 + e^-x)`.
    Sigmoid(Box<Function>),
    /// Hyperbolic tangent.
    Tanh(Box<Function>),
    /// Bounds.
    Clamp(Box<Function>, Clamp),
    /// Sum.
    Add(Box<Function>, Box<Function>),
    /// Product.
    Multiply(Box<Function>, Box<Function>),
    /// Quotient.
    Divide(Box<Function>, Box<Function>),
}
use Function::{Add, Argument, Clamp as Bounded, Constant, Divide, Erf, Multiply, Sigmoid, Tanh};

impl Function {
    /// `x · (1 + erf(x / √2)) / 2`.
    #[must_use]
    pub fn gelu() -> Self {
        let erf = Erf(Box::new(Argument.times(Constant(std::f32::consts::FRAC_1_SQRT_2))));
        Argument.times(erf.plus(Constant(1.0)).times(Constant(0.5)))
    }

    /// `x · (1 + tanh(√(2/π) · (x + 0.044715·x³))) / 2`.
    #[must_use]
    pub fn gelu_by_tanh() -> Self {
        let cube = Argument.times(Argument).times(Argument);
        let inner = Argument.plus(cube.times(Constant(0.044_715))).times(Constant((2.0 / std::f32::consts::PI).sqrt()));
        Argument.times(Tanh(Box::new(inner)).plus(Constant(1.0)).times(Constant(0.5)))
    }

    /// `min(max(slope·x + offset, 0), 1)`.
    #[must_use]
    pub fn hard_sigmoid(slope: f32, offset: f32) -> Self {
        Bounded(Box::new(Argument.times(Constant(slope)).plus(Constant(offset))), Clamp { min: 0.0, max: 1.0 })
    }

    /// Sum; of two numbers their sum.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        match (self, other) {
            (Constant(a), Constant(b)) => Constant(a + b),
            (a, b) => Add(Box::new(a), Box::new(b)),
        }
    }

    /// Product; of two numbers their product.
    #[must_use]
    pub fn times(self, other: Self) -> Self {
        match (self, other) {
            (Constant(a), Constant(b)) => Constant(a * b),
            (a, b) => Multiply(Box::new(a), Box::new(b)),
        }
    }

    /// Quotient.
    #[must_use]
    pub fn over(self, other: Self) -> Self {
        Divide(Box::new(self), Box::new(other))
    }

    /// This function of `inner` instead of `x`.
    #[must_use]
    pub fn of(&self, inner: &Self) -> Self {
        let of = |part: &Self| Box::new(part.of(inner));
        match self {
            Argument => inner.clone(),
            Constant(value) => Constant(*value),
            Erf(a) => Erf(of(a)),
            Sigmoid(a) => Sigmoid(of(a)),
            Tanh(a) => Tanh(of(a)),
            Bounded(a, clamp) => Bounded(of(a), *clamp),
            Add(a, b) => Add(of(a), of(b)),
            Multiply(a, b) => Multiply(of(a), of(b)),
            Divide(a, b) => Divide(of(a), of(b)),
        }
    }

    /// Value at `x`.
    #[must_use]
    pub fn at(&self, x: f32) -> f32 {
        match self {
            Argument => x,
            Constant(value) => *value,
            Erf(a) => erf(a.at(x)),
            Sigmoid(a) => 1.0 / (1.0 + (-a.at(x)).exp()),
            Tanh(a) => a.at(x).tanh(),
            Bounded(a, clamp) => clamp.apply(a.at(x)),
            Add(a, b) => a.at(x) + b.at(x),
            Multiply(a, b) => a.at(x) * b.at(x),
            Divide(a, b) => a.at(x) / b.at(x),
        }
    }

    /// `(slope, offset)` of a straight line.
    #[must_use]
    pub fn line(&self) -> Option<(f32, f32)> {
        match self {
            Argument => Some((1.0, 0.0)),
            Constant(value) => Some((0.0, *value)),
            Add(a, b) => {
                let ((slope, offset), (other_slope, other_offset)) = (a.line()?, b.line()?);
                Some((slope + other_slope, offset + other_offset))
            }
            Multiply(a, b) => match (a.line()?, b.line()?) {
                ((0.0, factor), (slope, offset)) | ((slope, offset), (0.0, factor)) => {
                    Some((slope * factor, offset * factor))
                }
                _ => None,
            },
            Divide(a, b) => match (a.line()?, b.line()?) {
                ((slope, offset), (0.0, divisor)) => Some((slope / divisor, offset / divisor)),
                _ => None,
            },
            _ => None,
        }
    }

    /// Name for people: that of a known function which has the same values, whatever its parts.
    #[must_use]
    pub fn name(&self) -> &'static str {
        let silu = Argument.times(Sigmoid(Box::new(Argument)));
        let hard_swish = Argument.times(Self::hard_sigmoid(1.0 / 6.0, 0.5));
        let known = [
            ("gelu", Self::gelu()),
            ("gelu_tanh", Self::gelu_by_tanh()),
            ("silu", silu),
            ("hardswish", hard_swish),
            ("hardsigmoid", Self::hard_sigmoid(1.0 / 6.0, 0.5)),
            ("sigmoid", Sigmoid(Box::new(Argument))),
            ("tanh", Tanh(Box::new(Argument))),
        ];
        let points = (-64..=64).map(|point| point as f32 / 8.0);
        let same = |other: &Self| points.clone().all(|x| (self.at(x) - other.at(x)).abs() <= 1e-5);
        known.iter().find(|(_, other)| same(other)).map_or("curve", |(name, _)| name)
    }
}

/// Error function; Abramowitz and Stegun 7.1.26, whose error is at most 1.5e-7.
fn erf(x: f32) -> f32 {
    let magnitude = f64::from(x.abs());
    let t = 1.0 / (1.0 + 0.327_591_1 * magnitude);
    let series = [1.061_405_429, -1.453_152_027, 1.421_413_741, -0.284_496_736, 0.254_829_592];
    let polynomial = series.iter().fold(0.0, |sum, term| (sum + term) * t);
    (1.0 - polynomial * (-magnitude * magnitude).exp()).copysign(f64::from(x)) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn erf_has_the_values_of_the_tables() {
        // Abramowitz and Stegun, table 7.1.
        for (x, expected) in [(0.0, 0.0), (0.5, 0.520_499_9), (1.0, 0.842_700_8), (2.0, 0.995_322_3), (5.0, 1.0)] {
            assert!((erf(x) - expected).abs() < 3e-7 && (erf(-x) + expected).abs() < 3e-7, "{x}: {}", erf(x));
        }
    }

    #[test]
    fn a_name_depends_on_values_only() {
        let half_first = Argument
            .times(Constant(0.5))
            .times(Erf(Box::new(Argument.over(Constant(std::f32::consts::SQRT_2)))).plus(Constant(1.0)));
        assert_eq!((half_first.name(), Function::gelu().name()), ("gelu", "gelu"));
        assert_eq!(Function::hard_sigmoid(0.2, 0.5).name(), "curve");
    }

    #[test]
    fn lines_are_seen_through_their_parts() {
        let line = Argument.plus(Constant(3.0)).over(Constant(2.0)).plus(Argument);
        assert_eq!(line.line(), Some((1.5, 1.5)));
        assert_eq!(Argument.times(Argument).line(), None);
        assert_eq!(Tanh(Box::new(Argument)).of(&line).at(1.0), 3.0f32.tanh());
    }
}
