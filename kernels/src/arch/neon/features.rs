//! What the CPU has: from the compiler's flags, from Linux, or from the CPU itself where no system keeps it.

pub(super) fn has_dot_product() -> bool {
    cfg!(target_feature = "dotprod") || system::has_dot_product()
}

pub(in crate::arch) fn has_matrix_product() -> bool {
    cfg!(target_feature = "i8mm") || system::has_matrix_product()
}

/// The bits that Linux hands to each process (`arch/arm64/include/uapi/asm/hwcap.h`).
#[cfg(any(target_os = "linux", target_os = "android"))]
mod system {
    use core::ffi::c_ulong;

    const AT_HWCAP: c_ulong = 16;
    const AT_HWCAP2: c_ulong = 26;
    const ASIMDDP: c_ulong = 1 << 20;
    const I8MM: c_ulong = 1 << 13;

    unsafe extern "C" {
        /// Of every C library on Linux; 0 for what the system does not know.
        safe fn getauxval(kind: c_ulong) -> c_ulong;
    }

    pub(super) fn has_dot_product() -> bool {
        getauxval(AT_HWCAP) & ASIMDDP != 0
    }

    pub(super) fn has_matrix_product() -> bool {
        getauxval(AT_HWCAP2) & I8MM != 0
    }
}

/// Identification registers, which code without a system may read (Arm ARM, `ID_AA64ISAR0_EL1.DP`, `ID_AA64ISAR1_EL1.I8MM`).
#[cfg(target_os = "none")]
mod system {
    use core::arch::asm;

    pub(super) fn has_dot_product() -> bool {
        let bits: u64;
        // SAFETY: every AArch64 core has the register; without an operating system there is no EL0 that may not read it.
        unsafe { asm!("mrs {}, id_aa64isar0_el1", out(reg) bits, options(pure, nomem, nostack, preserves_flags)) };
        bits >> 44 & 15 != 0
    }

    pub(super) fn has_matrix_product() -> bool {
        let bits: u64;
        // SAFETY: as above.
        unsafe { asm!("mrs {}, id_aa64isar1_el1", out(reg) bits, options(pure, nomem, nostack, preserves_flags)) };
        bits >> 52 & 15 != 0
    }
}

/// Other systems: what the compiler was told.
#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "none")))]
mod system {
    pub(super) fn has_dot_product() -> bool {
        false
    }

    pub(super) fn has_matrix_product() -> bool {
        false
    }
}
