//! How fast this machine reads memory: the limit of decoding, which reads all weights for every token.

use std::hint::black_box;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use crate::platform;

/// Bytes that are read in one pass, unless caches are large or memory is short.
const BUFFER: u64 = 512 << 20;

/// The buffer has at least so many times the size of the largest cache, so that little of it is found there.
const CACHES: u64 = 8;

/// Fewer bytes than this say nothing about memory.
const SMALLEST: u64 = 32 << 20;

/// Passes, of which the fastest counts: what slows a pass down is not the memory.
const PASSES: usize = 8;

/// Bytes per second that `threads` threads read together from memory, one part of a buffer each, front to back. Takes
/// about a second.
///
/// It is the `sum` variant of the STREAM benchmark (McCalpin, 1995), which writes nothing. Nothing if memory is too short
/// for a buffer that is much larger than the caches.
pub fn read_bandwidth(threads: usize) -> Option<f64> {
    let free = platform::available_memory().unwrap_or(u64::MAX) / 4;
    let wanted = platform::largest_cache().map_or(BUFFER, |cache| BUFFER.max(cache.saturating_mul(CACHES)));
    let bytes = usize::try_from(wanted.min(free)).ok().filter(|&bytes| bytes as u64 >= SMALLEST)?;
    measure(threads.max(1), bytes, PASSES)
}

/// The fastest of `passes` passes of `threads` threads over about `bytes` bytes, in bytes per second.
fn measure(threads: usize, bytes: usize, passes: usize) -> Option<f64> {
    let part = bytes / threads / size_of::<u64>();
    let barrier = Barrier::new(threads + 1);
    let fastest = thread::scope(|scope| {
        for thread in 0..threads {
            let barrier = &barrier;
            scope.spawn(move || {
                // Written by the thread that reads it: memory belongs to the node that touches it first.
                let values: Vec<u64> = (0..part as u64).map(|index| index ^ thread as u64).collect();
                for _ in 0..passes {
                    barrier.wait();
                    black_box(sum(black_box(&values)));
                    barrier.wait();
                }
            });
        }
        let pass = |_| {
            barrier.wait();
            let start = Instant::now();
            barrier.wait();
            start.elapsed()
        };
        (0..passes).map(pass).min()
    });
    let seconds = fastest.filter(|time| *time > Duration::ZERO)?.as_secs_f64();
    Some((part * threads * size_of::<u64>()) as f64 / seconds)
}

/// The sum of all values, modulo 2^64.
fn sum(values: &[u64]) -> u64 {
    /// Independent sums, so that additions do not wait for each other and the compiler can use wide registers.
    const LANES: usize = 32;
    let (blocks, rest) = values.as_chunks::<LANES>();
    let mut sums = [0_u64; LANES];
    for block in blocks {
        for (sum, value) in sums.iter_mut().zip(block) {
            *sum = sum.wrapping_add(*value);
        }
    }
    sums.iter().chain(rest).fold(0, |sum, value| sum.wrapping_add(*value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_read() {
        for length in [0, 1, 31, 32, 33, 1000] {
            let values: Vec<u64> = (1..=length).collect();
            assert_eq!(sum(&values), length * (length + 1) / 2);
        }
        assert_eq!(sum(&[u64::MAX, 3]), 2);
    }

    #[test]
    fn any_number_of_threads_reads() {
        for threads in [1, 2, 5] {
            let bandwidth = measure(threads, 1 << 20, 2).unwrap();
            // Whatever the machine, it reads more than a floppy disk and less than all machines together.
            assert!((1e5..1e15).contains(&bandwidth), "{bandwidth}");
        }
    }
}
