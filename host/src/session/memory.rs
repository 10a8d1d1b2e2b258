//! Where a provider has what graphs are given and return.

use ort::memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType};

/// The memory that a session works in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Memory {
    /// The processor's. A tensor that is bound is used as it is: what is written into it later is seen.
    #[default]
    Shared,
    /// As if it was not the processor's, to test what is done then.
    Apart,
    /// That of one of NVIDIA's GPUs. A tensor that is bound is copied at once, so that what changes has to be bound again; what a
    /// run returns stays there.
    Cuda {
        /// Number of the GPU.
        device: i32,
    },
}

impl Memory {
    /// Where the runtime is to allocate outputs that become inputs.
    pub(crate) fn info(self) -> ort::Result<MemoryInfo<'static>> {
        match self {
            Self::Shared | Self::Apart => {
                MemoryInfo::new(AllocationDevice::CPU, 0, AllocatorType::Device, MemoryType::CPUOutput)
            }
            Self::Cuda { device } => {
                MemoryInfo::new(AllocationDevice::CUDA, device, AllocatorType::Device, MemoryType::Default)
            }
        }
    }
}
