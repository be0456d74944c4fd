//! How large a pack may be, in every direction in which an agent can make it large.

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// What one pack may hold. Each over-step is a [`super::PackError::Limit`] with the configuration's name of the limit
/// and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackLimits {
    /// The pack itself, from its first byte to the end of its trailer.
    pub pack_bytes_max: u64,
    /// One object, inflated and with its delta resolved.
    pub object_bytes_max: u64,
    /// One commit, tree or tag: these are parsed in memory as a whole.
    pub structured_bytes_max: u64,
    /// All entries inflated and all deltas resolved, together.
    pub inflated_bytes_max: u64,
    /// The same, as a multiple of the pack's own size; [`Self::inflated_extra_bytes`] are free on top.
    pub inflated_ratio_max: u64,
    /// What is free on top of the ratio, so that a small pack may hold one compressible file.
    pub inflated_extra_bytes: u64,
    /// How many entries the pack may announce.
    pub objects_max: u32,
    /// How many deltas may stand on one another.
    pub delta_depth_max: u32,
    /// What the delta resolver keeps in memory; anything larger is built in the spool.
    pub resolver_memory_bytes: u64,
}

impl Default for PackLimits {
    fn default() -> Self {
        Self {
            pack_bytes_max: 2 * GIB,
            object_bytes_max: 512 * MIB,
            structured_bytes_max: 32 * MIB,
            inflated_bytes_max: 16 * GIB,
            inflated_ratio_max: 200,
            inflated_extra_bytes: 64 * MIB,
            objects_max: 2_000_000,
            delta_depth_max: 4_095,
            resolver_memory_bytes: 64 * MIB,
        }
    }
}

impl From<&crate::limits::Limits> for PackLimits {
    /// The limits of the configuration. A count that has no place in an entry's number is the largest that has.
    fn from(limits: &crate::limits::Limits) -> Self {
        let count = |value: u64| u32::try_from(value).unwrap_or(u32::MAX - 1);
        Self {
            pack_bytes_max: limits.pack_bytes,
            object_bytes_max: limits.object_bytes,
            inflated_bytes_max: limits.inflated_bytes,
            inflated_ratio_max: limits.inflated_ratio,
            objects_max: count(limits.objects),
            delta_depth_max: count(limits.delta_depth),
            resolver_memory_bytes: limits.resolver_bytes,
            ..Self::default()
        }
    }
}
