//! Log-linear histograms of microseconds, as `bpf/include/hist.h` records them: exact below 8, then eight buckets for
//! each doubling. The middle of a bucket is within 6.25 % of every value in it.

use thiserror::Error;

/// `HIST_SUB_BITS`: the logarithm of the number of buckets for each doubling.
const SUB_BITS: u32 = 3;
const SUB: usize = 1 << SUB_BITS;

/// `HIST_BUCKETS`: the number of buckets. The last one has no upper end.
pub const BUCKETS: usize = (27 - SUB_BITS as usize + 2) * SUB;

/// A distribution of times. Counts may be cut short: missing buckets are empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Histogram {
    counts: Vec<u64>,
    sum: u64,
}

/// A bucket boundary that is shown, and where it lies among the recorded ones.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bound {
    /// Its value.
    pub seconds: f64,
    /// Number of recorded buckets below it.
    buckets: usize,
}

/// A boundary that no recorded bucket begins with.
#[derive(Debug, Clone, Copy, PartialEq, Error)]
#[error("{seconds} s is not a boundary that is recorded; the nearest are {below} and {above}")]
pub struct NotRecorded {
    /// What was asked for.
    pub seconds: f64,
    /// The next lower boundary.
    pub below: f64,
    /// The next higher one.
    pub above: f64,
}

/// Lower end of a bucket, in microseconds.
const fn lower_us(bucket: usize) -> u64 {
    if bucket < SUB {
        return bucket as u64;
    }
    let doubling = (bucket / SUB - 1) as u32;
    ((SUB + bucket % SUB) as u64) << doubling
}

/// The bucket that a value falls into.
pub fn bucket_of(us: u64) -> usize {
    if us < SUB as u64 {
        return us as usize;
    }
    let top = us.ilog2();
    let bucket = (top - SUB_BITS + 1) as usize * SUB + ((us >> (top - SUB_BITS)) as usize & (SUB - 1));
    bucket.min(BUCKETS - 1)
}

fn seconds(us: u64) -> f64 {
    // Dividing rounds once, so that 20 us prints as 0.00002.
    us as f64 / 1e6
}

impl Histogram {
    /// From recorded counts and their sum in microseconds.
    pub fn new(counts: &[u64], sum_us: u64) -> Self {
        let used = counts.iter().rposition(|&count| count > 0).map_or(0, |last| last + 1);
        Histogram { counts: counts[..used.min(BUCKETS)].to_vec(), sum: sum_us }
    }

    /// Adds one value.
    pub fn record(&mut self, us: u64) {
        let bucket = bucket_of(us);
        if self.counts.len() <= bucket {
            self.counts.resize(bucket + 1, 0);
        }
        self.counts[bucket] += 1;
        self.sum += us;
    }

    /// Number of values.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Sum of the values, in seconds.
    pub fn sum(&self) -> f64 {
        seconds(self.sum)
    }

    /// Number of values below each of the boundaries, which ascend.
    pub fn cumulative<'a>(&'a self, bounds: &'a [Bound]) -> impl Iterator<Item = (f64, u64)> + 'a {
        let (mut bucket, mut total) = (0, 0);
        bounds.iter().map(move |bound| {
            let end = bound.buckets.min(self.counts.len());
            total += self.counts[bucket.min(end)..end].iter().sum::<u64>();
            bucket = end.max(bucket);
            (bound.seconds, total)
        })
    }

    /// Buckets that hold something: lower end, upper end (infinite for the last) and count.
    pub fn buckets(&self) -> impl Iterator<Item = (f64, f64, u64)> + '_ {
        self.counts.iter().enumerate().filter(|(_, count)| **count > 0).map(|(bucket, &count)| {
            let upper = if bucket + 1 < BUCKETS { seconds(lower_us(bucket + 1)) } else { f64::INFINITY };
            (seconds(lower_us(bucket)), upper, count)
        })
    }

    /// The value below which a share `q` (0 to 1) of the values lies, to within half a bucket; `None` when empty.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        let rank = ((q * count as f64).ceil() as u64).clamp(1, count);
        let mut seen = 0;
        let bucket = self.counts.iter().position(|count| {
            seen += count;
            seen >= rank
        })?;
        let lower = lower_us(bucket);
        let upper = lower_us(bucket + 1);
        // Values are whole microseconds: in a bucket one wide there is only its lower end.
        Some((lower + upper - 1) as f64 / 2.0 / 1e6)
    }
}

impl Bound {
    /// A boundary to be shown.
    ///
    /// # Errors
    /// [`NotRecorded`] if values on its two sides may share a recorded bucket.
    pub fn new(seconds_wanted: f64) -> Result<Bound, NotRecorded> {
        let us = seconds_wanted * 1e6;
        let buckets = if us >= 0.0 { bucket_of(us.round() as u64) } else { 0 };
        let found = seconds(lower_us(buckets));
        if buckets > 0 && (seconds_wanted - found).abs() < 1e-9 {
            return Ok(Bound { seconds: found, buckets });
        }
        let above = seconds(lower_us((buckets + 1).min(BUCKETS - 1)));
        let below = seconds(lower_us(buckets.max(1)));
        Err(NotRecorded { seconds: seconds_wanted, below, above })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_meet_and_are_narrow() {
        for bucket in 0..BUCKETS - 1 {
            let (lower, upper) = (lower_us(bucket), lower_us(bucket + 1));
            assert_eq!(bucket_of(lower), bucket);
            assert_eq!(bucket_of(upper - 1), bucket);
            let half = (upper - 1 - lower) as f64 / 2.0;
            assert!(half <= 0.0625 * lower as f64, "bucket {bucket} from {lower} to {upper}");
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn cumulative_counts_do_not_rebin() {
        let mut histogram = Histogram::default();
        for us in [5, 19, 20, 39, 40, 1_000_000, u64::from(u32::MAX)] {
            histogram.record(us);
        }
        let bounds = [0.00002, 0.00004, 0.00128].map(|s| Bound::new(s).unwrap());
        let shown: Vec<_> = histogram.cumulative(&bounds).collect();
        assert_eq!(shown, [(0.00002, 2), (0.00004, 4), (0.00128, 5)]);
        assert_eq!(histogram.count(), 7);
    }

    #[test]
    fn a_boundary_inside_a_bucket_is_refused_with_its_neighbours() {
        let error = Bound::new(0.0001).unwrap_err();
        assert_eq!((error.below, error.above), (0.000096, 0.000104));
        assert!(Bound::new(-1.0).is_err());
        assert!(Bound::new(0.0).is_err());
    }

    #[test]
    fn quantiles_are_within_the_promised_error() {
        let mut histogram = Histogram::default();
        (1..=100_000).for_each(|us| histogram.record(us));
        for q in [0.5, 0.75, 0.9, 0.99, 0.999] {
            let value = histogram.quantile(q).unwrap() * 1e6;
            let truth = q * 100_000.0;
            assert!((value / truth - 1.0).abs() <= 0.0625, "{q}: {value} for {truth}");
        }
        assert_eq!(Histogram::default().quantile(0.5), None);
    }
}
