//! The channel protocols that run over WebSockets: each message is of one channel, which its first byte names.

use axum::extract::ws::Message;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::{BufMut, Bytes, BytesMut};

/// Channel numbers of exec and attach.
pub(super) const STDIN: u8 = 0;
pub(super) const STDOUT: u8 = 1;
pub(super) const STDERR: u8 = 2;
pub(super) const ERROR: u8 = 3;
pub(super) const RESIZE: u8 = 4;
/// With version 5: the channel that the second byte names is closed.
const CLOSE: u8 = 255;

/// A version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Protocol {
    /// 1, 4 or 5.
    pub version: u8,
    /// Whether messages are text: a digit, and base64.
    pub base64: bool,
}

/// The protocols of exec and attach, the best first.
pub(super) const EXEC: &[&str] = &[
    "v5.channel.k8s.io",
    "v4.channel.k8s.io",
    "v4.base64.channel.k8s.io",
    "channel.k8s.io",
    "base64.channel.k8s.io",
];

impl Protocol {
    /// The protocol of a name. A client that names none speaks the oldest.
    pub(super) fn named(name: &str) -> Self {
        let version = match name.split_once('.') {
            Some(("v5", _)) => 5,
            Some(("v4", _)) => 4,
            _ => 1,
        };
        Self { version, base64: name.contains("base64") }
    }

    /// A message of a channel.
    pub(super) fn message(self, channel: u8, data: &[u8]) -> Message {
        if self.base64 {
            let mut text = String::with_capacity(1 + data.len().div_ceil(3) * 4);
            text.push(char::from(b'0' + channel % 10));
            BASE64_STANDARD.encode_string(data, &mut text);
            return Message::Text(text.into());
        }
        let mut bytes = BytesMut::with_capacity(1 + data.len());
        bytes.put_u8(channel);
        bytes.put_slice(data);
        Message::Binary(bytes.freeze())
    }

    /// What a message means.
    pub(super) fn read(self, message: Message) -> Event {
        let payload: Bytes = match message {
            Message::Binary(bytes) => bytes,
            Message::Text(text) => text.into(),
            Message::Close(_) => return Event::Gone,
            Message::Ping(_) | Message::Pong(_) => return Event::Nothing,
        };
        let Some(first) = payload.first().copied() else { return Event::Nothing };
        let rest = payload.slice(1..);
        if self.base64 {
            return match BASE64_STANDARD.decode(&rest) {
                Ok(data) => Event::Data(first.wrapping_sub(b'0'), data.into()),
                Err(_) => Event::Gone,
            };
        }
        match rest.first() {
            Some(channel) if first == CLOSE && self.version >= 5 => Event::Closed(*channel),
            _ => Event::Data(first, rest),
        }
    }
}

/// What a client's message means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// Data of a channel.
    Data(u8, Bytes),
    /// The client will send no more on a channel.
    Closed(u8),
    /// The client is gone, or does not keep to the protocol.
    Gone,
    /// Nothing that concerns a channel.
    Nothing,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(protocol: &str, message: Message, expected: Event) {
        assert_eq!(Protocol::named(protocol).read(message), expected);
    }

    #[test]
    fn messages_name_their_channel() {
        let binary = |bytes: &'static [u8]| Message::Binary(Bytes::from_static(bytes));
        check("v5.channel.k8s.io", binary(b"\x00hi"), Event::Data(0, "hi".into()));
        check("v5.channel.k8s.io", binary(b"\xff\x00"), Event::Closed(0));
        check("v4.channel.k8s.io", binary(b"\xff\x00"), Event::Data(255, Bytes::from_static(b"\0")));
        check("v5.channel.k8s.io", binary(b"\xff"), Event::Data(255, Bytes::new()));
        check("v5.channel.k8s.io", binary(b""), Event::Nothing);
        check("v4.base64.channel.k8s.io", Message::Text("0aGk=".into()), Event::Data(0, "hi".into()));
        check("v4.base64.channel.k8s.io", Message::Text("0!".into()), Event::Gone);
        check("", binary(b"\x00hi"), Event::Data(0, "hi".into()));
        check("v5.channel.k8s.io", Message::Close(None), Event::Gone);
    }

    proptest! {
        #[test]
        fn messages_survive_the_journey(at in 0..EXEC.len(), channel in 0u8..10, data in prop::collection::vec(any::<u8>(), 0..300)) {
            let protocol = Protocol::named(EXEC[at]);
            let event = protocol.read(protocol.message(channel, &data));
            prop_assert_eq!(event, Event::Data(channel, data.into()));
        }

        #[test]
        fn any_message_is_read_without_harm(at in 0..EXEC.len(), data in prop::collection::vec(any::<u8>(), 0..50), text in "\\PC{0,20}") {
            let protocol = Protocol::named(EXEC[at]);
            protocol.read(Message::Binary(data.into()));
            protocol.read(Message::Text(text.into()));
        }
    }
}
