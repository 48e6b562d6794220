//! A [`Batch`] is the jobs of one request and, if it asks for one, the job that is to come when all of them have ended. Its
//! jobs may name each other by a `key` of their own and wait for each other, in any order that is no circle.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};

use uuid::Uuid;

use super::enqueue::Outcome;
use super::job::{NewJob, key};
use super::workflow::OnFailure;
use super::{JobId, QueueName};
use crate::error::{Error, Result};

/// The most jobs in one request.
pub const BATCH_MAX: usize = 500;

/// The most that the jobs of one request can wait for altogether.
const NEEDS_MAX: usize = 5_000;

/// The most jobs that one can wait for.
pub const DEPENDS_MAX: usize = 500;

#[derive(Debug)]
pub struct Batch {
    pub jobs: Vec<Result<NewJob>>,
    pub then: Option<Then>,
}

/// What is to be done when all jobs of the batch have ended, whatever became of them unless it says otherwise.
#[derive(Debug)]
pub struct Then {
    pub queue: QueueName,
    pub job: NewJob,
}

/// A job that another one waits for.
#[derive(Debug)]
pub(super) enum Need {
    Job(JobId),
    /// Of a job of the same request.
    Key(String),
}

/// The jobs of a batch by their places in it, each after those it waits for.
pub(super) struct Order<'a> {
    pub places: Vec<usize>,
    /// Those that have no place in it.
    pub refused: BTreeMap<usize, Error>,
    names: HashMap<&'a str, usize>,
}

impl Batch {
    /// Errors: `bad_request` past the bounds.
    pub fn new(jobs: Vec<Result<NewJob>>, then: Option<Then>) -> Result<Batch> {
        if !(1..=BATCH_MAX).contains(&jobs.len()) {
            return Err(Error::bad_request(format!("jobs are not 1 to {BATCH_MAX}")).hint("Send several requests."));
        }
        let needs: usize = jobs.iter().flatten().map(|job| job.needs.len()).sum();
        if needs > NEEDS_MAX {
            return Err(Error::bad_request(format!("the jobs of one request wait for {needs} others, but {NEEDS_MAX} is the most"))
                .hint("A job between that waits for many, and is waited for by many, saves most of them."));
        }
        Ok(Batch { jobs, then })
    }

    pub fn of_one(job: NewJob) -> Batch {
        Batch { jobs: vec![Ok(job)], then: None }
    }

    pub(super) fn order(&self) -> Order<'_> {
        let mut order = Order { places: Vec::with_capacity(self.jobs.len()), refused: BTreeMap::new(), names: HashMap::new() };
        let mut waiting_for = vec![Vec::new(); self.jobs.len()];
        for (place, job) in self.jobs.iter().enumerate() {
            if let Ok(NewJob { name: Some(name), .. }) = job
                && *order.names.entry(name).or_insert(place) != place
            {
                order.refused.insert(place, Error::bad_request(format!("two jobs of this request have the key {name}")));
            }
        }
        for (place, job) in self.jobs.iter().enumerate() {
            match job.as_ref().map_or(Ok(Vec::new()), |job| order.named(job)) {
                Ok(names) => waiting_for[place] = names,
                Err(error) => _ = order.refused.insert(place, error),
            }
        }
        order.arrange(&waiting_for, self);
        order
    }
}

impl<'a> Order<'a> {
    /// The places of the jobs of this request that it waits for.
    fn named(&self, job: &NewJob) -> Result<Vec<usize>> {
        let place = |need: &Need| match need {
            Need::Job(_) => None,
            Need::Key(key) => Some(self.names.get(key.as_str()).copied().ok_or_else(|| {
                Error::bad_request(format!("depends_on: {key} is neither a job's id nor the key of a job in this request"))
            })),
        };
        job.needs.iter().filter_map(place).collect()
    }

    /// The one that came first goes first, as far as the others let it.
    fn arrange(&mut self, waiting_for: &[Vec<usize>], batch: &'a Batch) {
        let mut missing: Vec<usize> = waiting_for.iter().map(Vec::len).collect();
        let mut followers = vec![Vec::new(); missing.len()];
        for (place, needs) in waiting_for.iter().enumerate() {
            needs.iter().for_each(|need| followers[*need].push(place));
        }
        let mut free: BinaryHeap<_> = (0..missing.len()).filter(|place| missing[*place] == 0).map(Reverse).collect();
        while let Some(Reverse(place)) = free.pop() {
            self.places.push(place);
            for follower in &followers[place] {
                missing[*follower] -= 1;
                if missing[*follower] == 0 {
                    free.push(Reverse(*follower));
                }
            }
        }
        for place in (0..missing.len()).filter(|place| missing[*place] > 0) {
            let error = match circle(place, waiting_for, &missing) {
                Some(circle) => {
                    let name = |place: &usize| batch.jobs[*place].as_ref().ok().and_then(|job| job.name.as_deref()).unwrap_or("?");
                    let names: Vec<_> = circle.iter().map(name).collect();
                    Error::bad_request(format!("depends_on goes round in a circle: {}", names.join(" → ")))
                }
                None => needed_refused(),
            };
            self.refused.insert(place, error);
        }
        self.places.retain(|place| !self.refused.contains_key(place));
    }

    /// The jobs that this one waits for. Errors: `conflict` when one of them was not added.
    pub fn needs(&self, job: &NewJob, outcomes: &[Option<Outcome>]) -> Result<Vec<JobId>> {
        let id = |need: &Need| match need {
            Need::Job(id) => Ok(*id),
            Need::Key(key) => match self.names.get(key.as_str()).and_then(|place| outcomes[*place].as_ref()) {
                Some(Outcome::Enqueued(made)) => Ok(made.id),
                _ => Err(needed_refused()),
            },
        };
        job.needs.iter().map(id).collect()
    }
}

impl Then {
    pub(super) fn on_failure(&self) -> OnFailure {
        self.job.on_failure.unwrap_or(OnFailure::Run)
    }
}

/// The way from a job that is held up back to itself, if there is one.
fn circle(from: usize, waiting_for: &[Vec<usize>], missing: &[usize]) -> Option<Vec<usize>> {
    let (mut stack, mut came_from) = (vec![from], HashMap::new());
    while let Some(place) = stack.pop() {
        for &need in waiting_for[place].iter().filter(|need| missing[**need] > 0) {
            if need == from {
                let back = std::iter::successors(Some(place), |at| came_from.get(at).copied());
                let mut way: Vec<usize> = std::iter::once(from).chain(back).collect();
                if way.last() != Some(&from) {
                    way.push(from);
                }
                way.reverse();
                return Some(way);
            }
            if !came_from.contains_key(&need) {
                came_from.insert(need, place);
                stack.push(need);
            }
        }
    }
    None
}

/// What tells a job from the others of its request, and no job's id.
pub(super) fn name(name: String) -> Result<String> {
    if Uuid::try_parse(&name).is_ok() {
        return Err(Error::bad_request("key is a UUID, as jobs' ids are").hint("Take another name; it counts in this request only."));
    }
    key("key", name)
}

pub(super) fn needs(texts: Vec<String>) -> Result<Vec<Need>> {
    if texts.len() > DEPENDS_MAX {
        return Err(Error::bad_request(format!("depends_on names more than {DEPENDS_MAX} jobs")).hint("Let one job wait for some of them."));
    }
    let need = |text: String| match Uuid::try_parse(&text) {
        Ok(_) => JobId::parse(&text).map(Need::Job),
        Err(_) => Ok(Need::Key(text)),
    };
    texts.into_iter().map(need).collect()
}

fn needed_refused() -> Error {
    Error::conflict("depends_on: a job of this request that it waits for was not added").hint("Its result says why.")
}

#[cfg(test)]
mod tests {
    use super::super::JobRequest;
    use super::*;

    fn batch(jobs: &[(&str, &[&str])]) -> Batch {
        let job = |(key, needs): &(&str, &[&str])| {
            let json = serde_json::json!({"payload": 1, "key": key, "depends_on": needs});
            serde_json::from_str::<JobRequest>(&json.to_string()).unwrap().check()
        };
        Batch::new(jobs.iter().map(job).collect(), None).unwrap()
    }

    #[test]
    fn each_job_comes_after_those_it_waits_for_and_else_in_the_order_of_the_request() {
        let batch = batch(&[("end", &["b", "a"]), ("a", &[]), ("b", &["a"]), ("c", &[])]);
        let order = batch.order();
        assert_eq!((order.places, order.refused.len()), (vec![1, 2, 0, 3], 0));
    }

    #[test]
    fn a_circle_is_named_and_what_waits_for_it_is_refused_with_it() {
        let batch = batch(&[("a", &["b"]), ("b", &["c", "d"]), ("c", &["a"]), ("d", &[]), ("e", &["a"]), ("self", &["self"]), ("d", &[])]);
        let order = batch.order();
        assert_eq!(order.places, [3]);
        let messages: Vec<_> = order.refused.into_iter().map(|(place, error)| (place, error.message().to_owned())).collect();
        assert!(messages[0].1.ends_with("a → b → c → a") && messages[1].1.ends_with("b → c → a → b"), "{messages:?}");
        assert!(messages[3].0 == 4 && messages[3].1.contains("was not added"), "{messages:?}");
        assert!(messages[4].1.ends_with("self → self") && messages[5].1.contains("the key d"), "{messages:?}");
    }
}
