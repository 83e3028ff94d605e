//! How a run ends: what was begun is over, everyone can ask again, and when everyone has gone nothing is left.

use super::World;
use crate::client::{Client, Mood};

impl World {
    /// Every client makes another call, which its server answers.
    pub(super) fn everyone_asks_through(&mut self, replica: usize) {
        self.through = Some(replica);
        let before: Vec<u64> = self.clients.iter().map(Client::served).collect();
        let waits = |world: &Self| -> Vec<usize> {
            (0..before.len()).filter(|number| world.clients[*number].served() == before[*number]).collect()
        };
        for _ in 0..super::CALM {
            let waiting = waits(self);
            // One call after the other, as the first may come to a pod that has just gone.
            let idle = waiting.iter().copied().filter(|number| self.clients[*number].is_settled());
            match self.run.rng.choice(idle.collect::<Vec<_>>()) {
                Some(number) => self.acts(number, Mood::LastCall),
                None if waiting.is_empty() => break,
                None => {}
            }
            self.step(Mood::Finishing);
        }
        let waiting: Vec<&Client> = waits(self).into_iter().map(|number| &self.clients[number]).collect();
        assert!(waiting.is_empty(), "whoever asks again through replica {replica} is answered, but not {waiting:#?}");
        self.through = None;
        self.calm(Mood::Finishing, Self::is_settled, "everything that was begun ends");
    }

    /// Streams are let go, nobody comes back for anything, and all that is under way comes to its end.
    pub(super) fn everyone_leaves(&mut self) {
        for number in 0..self.clients.len() {
            for id in self.clients[number].leave() {
                self.break_off(id);
            }
        }
        self.calm(Mood::Finishing, Self::is_quiet, "it gets quiet when everyone has gone");
        for pod in self.pods.iter_mut().filter(|pod| pod.alive) {
            pod.expire_all(&mut self.run);
        }
        self.calm(Mood::Finishing, Self::is_quiet, "it gets quiet when time is up");
        for pod in self.pods.iter().filter(|pod| pod.alive) {
            pod.check_left();
        }
    }

    /// Whether nothing is on its way, and no timer is.
    fn is_quiet(&self) -> bool {
        self.open.iter().all(|id| self.connections[*id].is_at_rest())
            && self.waiting_in_vain().is_empty()
            && self.pods.iter().all(|pod| !pod.alive || pod.is_quiet())
    }
}
