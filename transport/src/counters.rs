//! What a shard's transport counts: plain integers, read only when somebody asks.

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)+) => {
        /// One shard's transport counters since it started.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)+
        }

        impl Counters {
            /// Adds another shard's counters to these.
            pub fn add(&mut self, other: &Self) {
                $(self.$name = self.$name.saturating_add(other.$name);)+
            }
        }
    };
}

counters! {
    /// Connections accepted.
    accepted,
    /// Connections that could not be accepted, whatever the reason.
    accept_errors,
    /// Times that a listener was paused because descriptors or memory ran out.
    accept_pauses,
    /// Times that a listener rested because as many had been accepted as may be in a second.
    accept_waits,
    /// Connections closed at once because their address had as many as it may have.
    address_refused,
    /// Connections that exist now, those that are being closed included.
    connections,
    /// Connections that exist now and have not been let in yet.
    unauthenticated,
    /// Bytes held for connections now: parts of packets, and what congested connections do not take.
    held_bytes,
    /// Bytes that this shard has posted to others and they have not taken yet.
    mailbox_bytes,
    /// The most that it ever had posted to each of them, added up over them.
    mailbox_bytes_maximum,
    /// Connections closed because they did not send CONNECT in time.
    connect_timeouts,
    /// Connections closed because what they sent first is not MQTT.
    not_mqtt,
    /// Connections closed because their PROXY header is missing or wrong, or who sends it is not believed.
    proxy_refused,
    /// Connections that have agreed on TLS or WebSocket with us.
    handshakes,
    /// Connections closed because they have not.
    handshakes_failed,
    /// Requests for a file that were answered, whichever way.
    files_requested,
    /// Connections closed because they did not take a file in time.
    files_cut,
    /// Unauthenticated connections closed because there were too many, or they held too much.
    evicted,
    /// Connections closed because a packet of theirs did not arrive whole in time.
    frame_timeouts,
    /// Connections closed because too many bytes were held for all of them, and the most for these.
    shed,
    /// Connections that moved here from another shard.
    adopted,
    /// Bytes received.
    bytes_in,
    /// Bytes sent.
    bytes_out,
    /// Sends that the kernel took only in part.
    short_sends,
    /// Turns taken.
    turns,
    /// Faults of ours that were survived.
    panics,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_shards_add_up() {
        // What an operator reads is the sum over shards.
        let mut sum = Counters {
            accepted: 1,
            bytes_in: 10,
            ..Counters::default()
        };
        sum.add(&Counters {
            accepted: 2,
            turns: 5,
            ..Counters::default()
        });
        assert_eq!(
            sum,
            Counters {
                accepted: 3,
                bytes_in: 10,
                turns: 5,
                ..Counters::default()
            }
        );
    }
}
