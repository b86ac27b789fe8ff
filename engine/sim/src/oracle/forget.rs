//! What lies behind is forgotten, so that an oracle of a long life is as quick as one of a short one.

use super::session::Session;
use super::{Number, Oracle};

impl Oracle {
    /// Everything is at rest, everybody is there and has taken what was owed: what remains is what stands, and what is
    /// retained. Nothing else that was published may come any more.
    pub fn forget(&mut self) {
        self.advance();
        self.missing.forget();
        self.forget_messages();
        for filter in self.topics.filters_mut() {
            filter.subscriptions.clear();
        }
        for id in 0..self.sessions.len() {
            if self.sessions[id].ended.is_some() {
                let who = self.sessions[id].who;
                self.sessions[id] = Session::over(who, self.at);
            } else {
                let Self { sessions, open, .. } = self;
                sessions[id].forget(open);
            }
            for (n, s) in self.sessions[id].subscriptions.iter().enumerate() {
                self.topics.filter_mut(s.filter).subscriptions.push((id, n));
            }
        }
        let sessions = &self.sessions;
        self.links.retain(|link, id| sessions[*id].link == Some(*link));
        self.group_debts.clear();
        self.replay_debts.clear();
        self.crashes.clear();
        self.pressed = false;
        self.lacked_disk = None;
        self.queue_max = self.rules.queue_max;
        self.wall_max = self.now.wall;
    }

    fn forget_messages(&mut self) {
        let wills = self.current.values().filter_map(|&id| self.session(id).will);
        let mut kept: Vec<Number> = self.open.iter().copied().chain(wills).collect();
        for topic in 0..self.retained.len() {
            let candidates = self.candidates(topic);
            self.retained[topic].clear();
            self.retained[topic].extend(&candidates);
            kept.extend(candidates);
        }
        kept.sort_unstable();
        kept.dedup();
        for empties in &mut self.empties {
            empties.retain(|number| kept.binary_search(number).is_ok());
        }
        for &number in &kept {
            let wall_max = self.wall_max;
            let over = !self.open.contains(&number);
            let life = self.life_mut(number);
            life.over = over && life.is_published();
            life.had_expired = life.may_have_expired(wall_max);
            life.holders.clear();
            life.had_room.clear();
        }
        self.messages.forget(&kept);
    }
}
