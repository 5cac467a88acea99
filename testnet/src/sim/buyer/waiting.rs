//! Jobs that wait for somebody to have room instead of failing, as `buyer/waiting.rs` has it.

use crate::sim::{
    JobNo, World,
    event::Timer,
    job::{End, Phase},
};
use infernet_node::market::course::Course;

impl World {
    /// Nobody serves a job now, for a reason that passes by itself.
    pub(super) fn wait_or_fail(&mut self, no: JobNo, why: &'static str) {
        let ms = self.ms;
        let job = self.job_mut(no);
        if job.ended.is_some() {
            return;
        }
        let (who, elapsed) = (job.buyer, ms - job.began);
        let pause = if job.cancelled { None } else { job.pauses.next(elapsed) };
        let Some(pause) = pause else { return self.end(no, End::Failed(why)) };
        self.set_phase(no, Phase::Waiting);
        self.stats.count("waited", why);
        self.note(who, "waits", &[("job", no.into()), ("ms", pause)]);
        self.set(who, ms + pause, Timer::Again(no));
    }

    /// A pause is over.
    pub(in crate::sim) fn on_waited(&mut self, no: JobNo) {
        let job = self.job_mut(no);
        if job.ended.is_some() {
            return;
        }
        if job.cancelled {
            return self.end(no, End::Cancelled);
        }
        job.course = Course::new(job.order.wishes.path);
        (job.attempts, job.last_failure) = (None, None);
        self.proceed(no);
    }
}
