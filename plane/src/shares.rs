//! Something of which there is so much in all, and a share of it for each who asks, so that nobody takes it from the rest.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

type Taken = Arc<Mutex<HashMap<String, usize>>>;

/// All of it.
#[derive(Debug, Clone)]
pub struct Shares {
    all: Arc<Semaphore>,
    taken: Taken,
}

/// What somebody has of it, until it is dropped.
#[derive(Debug)]
pub struct Share {
    of: Shares,
    who: String,
    held: Vec<OwnedSemaphorePermit>,
    count: usize,
}

impl Shares {
    pub(crate) fn new(most: usize) -> Self {
        Shares { all: Arc::new(Semaphore::new(most)), taken: Taken::default() }
    }

    /// Nothing yet, for `who`.
    pub(crate) fn of(&self, who: impl Into<String>) -> Share {
        Share { of: self.clone(), who: who.into(), held: Vec::new(), count: 0 }
    }
}

impl Share {
    /// Makes it `count`, unless that is more than there is, or than `each` in all shares of this name. Whether it is so many.
    pub(crate) fn grow(&mut self, count: usize, each: usize) -> bool {
        let more = count.saturating_sub(self.count);
        if more == 0 {
            return true;
        }
        let Ok(wanted) = u32::try_from(more) else { return false };
        // Nothing in here panics while it holds the lock.
        let mut taken = self.of.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let own = taken.get(&self.who).map_or(0, |own| *own).saturating_add(more);
        if own > each {
            return false;
        }
        let Ok(permit) = self.of.all.clone().try_acquire_many_owned(wanted) else { return false };
        match self.held.first_mut() {
            Some(held) => held.merge(permit),
            None => self.held.push(permit),
        }
        taken.insert(self.who.clone(), own);
        self.count = count;
        true
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut taken = self.of.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let left = taken.get(&self.who).map_or(0, |own| own.saturating_sub(self.count));
        if left == 0 {
            taken.remove(&self.who);
        } else {
            taken.insert(std::mem::take(&mut self.who), left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_takes_more_than_a_share_and_what_is_given_back_is_there_again() {
        let shares = Shares::new(6);
        let (mut first, mut second, mut other) = (shares.of("a"), shares.of("a"), shares.of("b"));
        assert!(first.grow(2, 4) && first.grow(3, 4) && first.grow(1, 4), "it grows, and stays");
        assert!(!second.grow(2, 4), "all of a name have one share");
        assert!(second.grow(1, 4));
        assert!(!other.grow(3, 4), "there are but two left");
        assert!(other.grow(2, 4), "others have theirs");
        drop((first, second, other));
        assert!(shares.taken.lock().expect("no panic").is_empty());
        assert!(shares.of("a").grow(6, 6));
    }
}
