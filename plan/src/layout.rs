//! Every number of the format. `docs/image-format.md` explains them.

/// First four bytes of an image.
pub const MAGIC: [u8; 4] = *b"SNET";
/// A runtime refuses an image of another major version.
pub const MAJOR: u8 = 4;
/// A higher minor version only adds optional sections.
pub const MINOR: u8 = 0;
/// Weights as each op says, which every instruction set runs.
pub const TARGET_CLASS_PORTABLE: u16 = 0;
/// Bytes before the section table.
pub const HEADER_LEN: usize = 20;
/// Bytes of one entry of the section table: id `u16`, flags `u16`, offset `u32`, length `u32`.
pub const SECTION_ENTRY_LEN: usize = 12;
/// Where the checksum is; it covers every other byte.
pub const CRC_OFFSET: usize = 12;
/// Most entries of the section table, known and unknown.
pub const MAX_SECTIONS: usize = 32;
/// Bit of the section flags: a reader that does not know the section may skip it.
pub const FLAG_OPTIONAL: u16 = 1;
/// Sections and weight rows start at multiples of this, so that a core may load words.
pub const ALIGN: usize = 4;
/// Sizes in the arena are rounded up to this.
pub const ARENA_ALIGN: u32 = 16;
/// "No tensor" in an op.
pub const NO_TENSOR: u16 = 0xffff;
/// "No anchor": a cut that all anchors share (input, output).
pub const SHARED: u16 = 0xffff;
/// Terms of one dot product at most: 65,536 · 128 · 128 + bias stays inside `i32`.
pub const MAX_REDUCTION: u32 = 65_536;
/// Bound on the absolute value of a bias, for the same reason.
pub const MAX_BIAS: u32 = 1 << 29;
/// Records of one section at most.
pub const MAX_RECORDS: usize = 65_535;
/// Channels of an input image at most.
pub const MAX_INPUT_CHANNELS: u16 = 16;
/// Segments of one path at most.
pub const MAX_PATH: u16 = 255;
/// Segments of all paths together at most.
pub const MAX_PATH_SEGMENTS: u32 = 1 << 20;
/// Ops of one segment at most.
pub const MAX_SEGMENT_OPS: u16 = 255;
/// Tensors of one segment at most.
pub const MAX_SEGMENT_TENSORS: usize = 256;
/// Bytes of all names, biases, multipliers and shifts that records name, as a multiple of the data section: what
/// is shared is checked once for each record that names it.
pub const MAX_SHARING: u64 = 16;
/// Maps of one image that are kept beside the two-ended arena at most: one bit each in a segment's record.
pub const MAX_KEPT: u16 = 8;
/// Bit of a tensor's offset: the tensor is the kept map whose number the other bits are.
pub const KEPT: u32 = 1 << 31;
/// Flag of an op of a head: it runs on the rows of the patches that were asked for.
pub const PER_PATCH: u16 = 4;
/// Flag of an op of a head: it runs on the rows of the boxes that are left.
pub const PER_BOX: u16 = 8;
/// Flag of an op of a head: it runs if there is a patch.
pub const IF_PATCHES: u16 = 16;
/// Flag of a position code: its input refines the boxes first.
pub const REFINES: u16 = 32;
/// Flag of windows: they lie where patches were asked for.
pub const AT_PATCHES: u16 = 128;
/// Anchors of the fixed patches, and of all probed ones, at most.
pub const MAX_ANCHORS: u16 = 96;
/// Probed patches at most.
pub const MAX_PATCHES: u16 = 16;
/// Boxes that a head refines at most.
pub const MAX_BOXES: u16 = 64;
/// Boxes whose matrices a mixing makes at once.
pub const MIX_BOXES: usize = 4;
/// Boxes whose insides are pooled at once.
pub const POOL_BOXES: usize = 10;
/// Detections of one picture at most.
pub const MAX_DETECTIONS: u16 = 100;
/// Maps that a head pools and samples.
pub const HEAD_MAPS: usize = 3;
/// Bytes of a detection, and of the number of detections before the first.
pub const DETECTION_LEN: u16 = 12;
/// Flag of an op whose output the next one takes up strip by strip: [`crate::stream`].
pub const STREAMED: u16 = 256;
/// Ops of one stream at most.
pub const MAX_STREAM: usize = 8;
/// Flag of a convolution: a table follows the clamp.
pub const WITH_CURVE: u16 = 1;
/// Flag of a convolution: its weights lie in blocks ([`crate::Op::fits_blocks`]).
pub const IN_BLOCKS: u16 = 512;
/// Output channels of such a block.
pub const BLOCK: u16 = 16;
/// Flag of an attention: it has a bias.
pub const WITH_BIAS: u16 = 1;
/// Flag of an attention: its bias is its third operand, an int16 map `[heads, queries, keys]`.
pub const WITH_BIAS_MAP: u16 = 64;
/// Flag of an attention: it has a mask.
pub const WITH_MASK: u16 = 2;
/// Channels that a LayerNorm may have: its sums stay inside 64 bits.
pub const MAX_NORM_CHANNELS: u16 = 2048;
/// Keys that an attention may have: the sum of their weights stays inside 32 bits.
pub const MAX_KEYS: u32 = 2048;
