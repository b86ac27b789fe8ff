//! What clients do, one deed after the other.

use super::swarm::Swarm;
use crate::rng::Rng;
use crate::story::Op;

/// The stream of deeds.
pub(super) struct Deeds(Rng);

impl Deeds {
    pub(super) fn new(seed: u64) -> Self {
        Self(Rng::named(seed, "deeds"))
    }

    /// The next deed.
    pub(super) fn next(&mut self, swarm: &Swarm) -> Op {
        // A stream for each, so that one that grows longer changes no other.
        let rng = &mut Rng::new(self.0.next());
        let who = rng.below(swarm.clients());
        match kind(rng, &swarm.weights) {
            0 => Op::Connect(who, swarm.connect_plan(rng)),
            1 => {
                let expiry = rng.percent(20).then(|| [0, 3, 100, u32::MAX][rng.below(4)]);
                Op::Disconnect(who, rng.percent(20), expiry)
            }
            2 => {
                let count = rng.between(1, 2);
                let filters = (0..count).map(|_| (swarm.filter(rng), swarm.subscription_options(rng)));
                Op::Subscribe(
                    who,
                    filters.collect(),
                    rng.percent(50).then(|| rng.between(1, 99) as u32),
                )
            }
            3 => Op::Unsubscribe(who, swarm.filter(rng)),
            4 => {
                let count = 1 + rng.below(swarm.burst_max);
                Op::Publish(who, swarm.publish_plan(rng), count)
            }
            _ => Op::Release(who, 1 + rng.below(3)),
        }
    }
}

fn kind(rng: &mut Rng, weights: &[u64]) -> usize {
    let mut ticket = rng.next() % weights.iter().sum::<u64>();
    for (kind, &weight) in weights.iter().enumerate() {
        if ticket < weight {
            return kind;
        }
        ticket -= weight;
    }
    0
}
