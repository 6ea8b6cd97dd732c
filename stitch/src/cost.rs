//! Stage 9: predicted ticks of each segment on a target.

use plan::{Cost, OpKind};

use crate::network::{IntegerOp, IntegerSegment};

/// Cost of an op as a sum of parts, in cycles · 1000 so that the table is integer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CostModel {
    /// Name of the target.
    pub target: String,
    /// Cycles of the core in one tick.
    pub cycles_per_tick: u64,
    /// Ticks in one second.
    pub ticks_per_second: u32,
    /// Per multiply-accumulate of a convolution.
    pub mac: u64,
    /// Per output of a convolution: bias, rescale, clamp, store.
    pub output: u64,
    /// Per element of everything else.
    pub element: u64,
    /// Per op: its record, its tensors, the call.
    pub op: u64,
    /// Ticks that a change of config adds: the weights of the new path are not in any cache.
    pub switch_ticks: u32,
    /// Bound of a segment over its prediction, in 1/100.
    pub bound_percent: u64,
    /// Power while it computes, microwatts.
    pub power_uw: u64,
}

impl CostModel {
    /// A Cortex-M4F at 168 MHz, ticks of a microsecond. An estimate from instruction counts of the DSP kernels
    /// (`cargo xtask qemu`), not a measurement on silicon: flash wait states are not in it. Nor are bound and power
    /// measured: half as long again, and 100 mW. `stitchnet bench` puts measured costs beside them.
    #[must_use]
    pub fn cortex_m4f() -> Self {
        Self {
            target: "cortex-m4f at 168 MHz (estimate)".into(),
            cycles_per_tick: 168,
            ticks_per_second: 1_000_000,
            mac: 2_200,
            output: 40_000,
            element: 14_000,
            op: 1_000_000,
            switch_ticks: 20,
            bound_percent: 150,
            power_uw: 100_000,
        }
    }

    /// What a segment costs.
    #[must_use]
    pub fn cost(&self, segment: &IntegerSegment) -> Cost {
        let ticks = self.ticks(segment);
        let of = |amount: u64, percent: u64| u32::try_from((amount * percent).div_ceil(100)).unwrap_or(u32::MAX);
        // ticks / (ticks/s) · µW = µJ
        let energy = u64::from(ticks) * self.power_uw / u64::from(self.ticks_per_second.max(1));
        Cost {
            ticks,
            bound_ticks: of(ticks.into(), self.bound_percent),
            energy_uj: of(energy, 100),
            bound_energy_uj: of(energy, self.bound_percent),
        }
    }

    /// Ticks of a segment, at least 1.
    fn ticks(&self, segment: &IntegerSegment) -> u32 {
        let cycles: u64 = segment.ops.iter().map(|op| self.cycles(segment, op)).sum();
        u32::try_from((cycles / 1000).div_ceil(self.cycles_per_tick)).unwrap_or(u32::MAX).max(1)
    }

    fn cycles(&self, segment: &IntegerSegment, op: &IntegerOp) -> u64 {
        let elements = |tensor: plan::TensorId| segment.tensors[tensor.index()].0.iter().product::<usize>() as u64;
        self.op
            + match op.record.kind {
                OpKind::Conv | OpKind::Depthwise => op.macs * self.mac + elements(op.record.output) * self.output,
                OpKind::AveragePool | OpKind::MaxPool => elements(op.record.input) * self.element,
                _ => elements(op.record.output) * self.element,
            }
    }
}
