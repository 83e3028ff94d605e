//! How a run ends: what was begun is over, everyone can ask again, and when everyone has gone nothing is left.

use super::World;
use crate::{
    client::{Client, Mood},
    network::Stage,
};

impl World {
    /// Every client makes another call, which its server answers.
    pub(super) fn everyone_asks_through(&mut self, replica: usize) {
        self.through = Some(replica);
        for number in 0..self.clients.len() {
            let served = self.clients[number].served();
            let promise = format!("whoever asks again through replica {replica} is answered");
            self.calm_for(number, |client| client.served() > served, &promise);
        }
        self.through = None;
        self.calm(Mood::Finishing, Self::is_settled, "everything that was begun ends");
    }

    fn calm_for(&mut self, number: usize, is_over: impl Fn(&Client) -> bool, promise: &str) {
        for _ in 0..super::CALM {
            if is_over(&self.clients[number]) {
                return;
            }
            self.step(Mood::Finishing);
            if self.run.chance(20) {
                self.acts(number, Mood::LastCall);
            }
        }
        panic!("{promise}, but {:#?} is not: {:#?}", self.clients[number], self.pods);
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

    /// Whether nothing is on its way.
    fn is_quiet(&self) -> bool {
        let rests = |id: &usize| {
            let connection = &self.connections[*id];
            connection.frames.is_empty() && !connection.hung_up && matches!(connection.stage, Stage::AtPod { .. })
        };
        self.open.iter().all(rests) && self.pods.iter().all(|pod| !pod.alive || pod.is_quiet())
    }
}
