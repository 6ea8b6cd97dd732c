//! Stage 9: predicted ticks of each segment on a target.

use plan::OpKind;

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
}

impl CostModel {
    /// A Cortex-M4F at 168 MHz, ticks of a microsecond. An estimate from instruction counts of the DSP kernels
    /// (`cargo xtask qemu`), not a measurement on silicon: flash wait states are not in it.
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
        }
    }

    /// Ticks of a segment, at least 1.
    #[must_use]
    pub fn ticks(&self, segment: &IntegerSegment) -> u32 {
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
