//! Which messages may be retained. Between publishers there is no order, so it is a set.

use std::collections::{BTreeMap, BTreeSet};

use super::message::Told;
use super::topics::TopicId;
use super::{At, Number, Oracle};
use crate::violation::{Verdict, ensure};

impl Oracle {
    /// A message is surely where it was to go. What it surely came after is retained no more.
    pub(super) fn settle(&mut self, number: Number) {
        let at = self.at;
        self.note_unwritten(number);
        let life = self.life_mut(number);
        let settled = *life.settled.get_or_insert(at);
        let (origin, is_will, last, again) = {
            let Told { message, life } = self.messages.get(number);
            if !message.retain || life.refused || life.doubtful {
                return;
            }
            (message.origin, message.is_will, life.last, life.again)
        };
        let others = self.retained[self.life(number).topic].clone();
        let mut overtaken = false;
        for other in others.into_iter().filter(|&other| other != number) {
            let Told { message, life } = self.messages.get(other);
            let same_publisher = message.origin == origin && !message.is_will && !is_will;
            let certain = !life.refused && !life.doubtful;
            let before = life.settled.is_some_and(|settled| settled < last) || same_publisher && life.again < last;
            let after =
                certain && life.settled.is_some() && (life.first > settled || same_publisher && life.last > again);
            overtaken |= after;
            if before {
                self.life_mut(other).replaced.get_or_insert(at);
            }
        }
        if overtaken {
            self.life_mut(number).replaced.get_or_insert(at);
        }
    }

    /// What may be retained for a topic; an empty message, or one that has expired, stands for none.
    pub(super) fn candidates(&self, topic: TopicId) -> BTreeSet<Number> {
        let published = self.retained[topic].iter().copied();
        published
            .filter(|&number| self.life(number).replaced.is_none())
            .collect()
    }

    /// The message that has surely been retained for a topic ever since, if there is one.
    pub(super) fn surely_retained_since(&self, topic: TopicId, at: At) -> Option<Number> {
        if self.may_lack_room() {
            return None;
        }
        let candidates = self.candidates(topic);
        let number = *candidates.first().filter(|_| candidates.len() == 1)?;
        let Told { message, life } = self.messages.get(number);
        let sure = life.settled.is_some_and(|settled| settled < at) && !life.refused && !life.doubtful;
        (sure && !message.payload.is_empty() && !life.may_have_expired(self.wall_max)).then_some(number)
    }

    /// Everything is at rest and somebody looked at all that is retained: it is one of the outcomes that may be.
    ///
    /// # Errors
    /// It is none of them.
    pub fn retained_is(&mut self, seen: &BTreeMap<String, Number>) -> Verdict {
        let at = self.advance();
        for name in seen.keys() {
            self.topic(name);
        }
        for topic in 0..self.retained.len() {
            let candidates = self.candidates(topic);
            let name = self.topics.name(topic);
            let is = seen.get(name).copied();
            if candidates.is_empty() && is.is_none() {
                continue;
            }
            let is_unsure = |number: Number| {
                let life = self.life(number);
                life.refused || life.doubtful || life.settled.is_none()
            };
            let may_be_none = self.may_lack_room()
                || candidates.iter().all(|&n| is_unsure(n))
                || candidates.iter().any(|&n| self.is_none(n));
            let right = is.map_or(may_be_none, |number| candidates.contains(&number));
            ensure(right, "I6", || {
                format!("{name} has message {is:?} retained, and may have {candidates:?}")
            })?;
            for other in candidates.into_iter().filter(|&number| Some(number) != is) {
                // A Will whose time has just come may still be on its way.
                let is_to_come = self.life(other).settled.is_none();
                // Where nothing is retained, what cleared it goes on to say so.
                if !is_to_come && (is.is_some() || !self.is_none(other)) {
                    self.life_mut(other).replaced = Some(at);
                }
            }
        }
        Ok(())
    }

    fn is_none(&self, number: Number) -> bool {
        self.message(number).payload.is_empty() || self.life(number).may_have_expired(self.wall_max)
    }
}
