//! A request's bytes to an answer's bytes. Pure.

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use super::zone::{Data, Lookup, Zone};

/// Seconds for which an answer, positive or negative, may be kept.
pub const TTL: u32 = 5;
/// The largest answer over UDP that we send or promise to take (RFC 9715 and "DNS flag day 2020").
const UDP_LIMIT: u16 = 1232;
/// An alias of an alias is followed this often.
const ALIASES: usize = 8;

/// How a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Answers are bounded by what the client takes, and truncated.
    Udp,
    /// Answers are bounded by 64 KiB.
    Tcp,
}

/// What to do with a request.
#[derive(Debug)]
pub enum Reply {
    /// It deserves no answer: it is no request.
    Ignore,
    /// Send these bytes.
    Send(Vec<u8>),
    /// The name is none of ours: ask an upstream resolver, which gets the request as it is.
    Forward(Box<Message>),
    /// An alias that points out of the cluster: ask upstream for the target and append its answer.
    Chase {
        /// The answer as far as it goes.
        answer: Box<Message>,
        /// The name to ask for.
        target: Name,
        /// The type to ask for.
        query_type: RecordType,
        /// The most that the client takes.
        limit: usize,
    },
}

/// Answers from the zone. `turn` rotates the addresses of a name; `forwards` says whether there is
/// an upstream resolver for all other names.
pub fn respond(request: &[u8], zone: &Zone, transport: Transport, forwards: bool, turn: usize) -> Reply {
    let request = match Message::from_vec(request) {
        Ok(request) => request,
        Err(_) => return malformed(request),
    };
    if request.metadata.message_type == MessageType::Response {
        return Reply::Ignore;
    }
    let mut answer = Message::response(request.metadata.id, request.metadata.op_code);
    answer.metadata.recursion_desired = request.metadata.recursion_desired;
    answer.metadata.recursion_available = forwards;
    answer.add_queries(request.queries.iter().cloned());
    let limit = limit(&request, transport);
    if request.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(UDP_LIMIT).set_version(0);
        answer.set_edns(edns);
    }
    match refusal(&request) {
        Some(code) => {
            answer.metadata.response_code = code;
            if code == ResponseCode::BADVERS {
                answer.edns.get_or_insert_default().set_rcode_high(code.high());
            }
            Reply::Send(encode(&answer, limit))
        }
        None => {
            let query = request.queries[0].clone();
            fill(answer, &query, zone, &request, forwards, turn, limit)
        }
    }
}

/// The code for a request that is not looked up at all.
fn refusal(request: &Message) -> Option<ResponseCode> {
    if request.edns.as_ref().is_some_and(|edns| edns.version() > 0) {
        return Some(ResponseCode::BADVERS);
    }
    if request.metadata.op_code != OpCode::Query {
        return Some(ResponseCode::NotImp);
    }
    let [query] = request.queries.as_slice() else { return Some(ResponseCode::FormErr) };
    let class = !matches!(query.query_class(), DNSClass::IN | DNSClass::ANY);
    let transfer = matches!(query.query_type(), RecordType::AXFR | RecordType::IXFR);
    (class || transfer).then_some(ResponseCode::Refused)
}

fn fill(
    mut answer: Message,
    query: &Query,
    zone: &Zone,
    request: &Message,
    forwards: bool,
    turn: usize,
    limit: usize,
) -> Reply {
    let mut owner = query.name().clone();
    let query_type = query.query_type();
    for hop in 0..ALIASES {
        let mut text = owner.to_lowercase().to_ascii();
        if text.ends_with('.') {
            text.pop();
        }
        let found = zone.lookup(&text);
        if found != Lookup::Elsewhere && !zone.is_ready() {
            answer.metadata.response_code = ResponseCode::ServFail;
            return Reply::Send(encode(&answer, limit));
        }
        match found {
            Lookup::Elsewhere if hop > 0 && forwards => {
                return Reply::Chase { answer: Box::new(answer), target: owner, query_type, limit };
            }
            Lookup::Elsewhere if hop > 0 => break,
            Lookup::Elsewhere if forwards => return Reply::Forward(Box::new(request.clone())),
            Lookup::Elsewhere => {
                answer.metadata.response_code = ResponseCode::NXDomain;
                break;
            }
            Lookup::Missing => {
                answer.metadata.authoritative = true;
                answer.metadata.response_code = ResponseCode::NXDomain;
                answer.authorities.extend(soa(zone, &text));
                break;
            }
            Lookup::Exists(data) => {
                answer.metadata.authoritative = true;
                let alias =
                    data.iter().find_map(|d| if let Data::Cname(name) = d { Some(name) } else { None });
                if let Some(target) = alias.filter(|_| query_type != RecordType::CNAME) {
                    let Some(target) = absolute(target) else { break };
                    answer.add_answer(record(owner, RData::CNAME(CNAME(target.clone()))));
                    owner = target;
                    continue;
                }
                records(&mut answer, &owner, query_type, data, zone, turn);
                if answer.answers.is_empty() || hop > 0 && answer.answers.len() == hop {
                    answer.authorities.extend(soa(zone, &text));
                }
                break;
            }
        }
    }
    Reply::Send(encode(&answer, limit))
}

/// Adds the records of the type that was asked for.
fn records(
    answer: &mut Message,
    owner: &Name,
    wanted: RecordType,
    data: Vec<Data>,
    zone: &Zone,
    turn: usize,
) {
    let mut rotated = data;
    let start = turn % rotated.len().max(1);
    rotated.rotate_left(start);
    let matches = |kind: RecordType| wanted == kind || wanted == RecordType::ANY;
    if wanted == RecordType::SOA && owner.to_lowercase() == absolute(zone.domain()).unwrap_or_default() {
        answer.answers.extend(soa(zone, zone.domain()));
    }
    for data in rotated {
        let rdata = match data {
            Data::A(ip) if matches(RecordType::A) => Some(RData::A(A(ip))),
            Data::Srv { port, target, addresses } if matches(RecordType::SRV) => {
                let target = absolute(&target);
                if let Some(target) = &target {
                    let glue = addresses.into_iter().map(|ip| record(target.clone(), RData::A(A(ip))));
                    answer.additionals.extend(glue);
                }
                target.map(|target| RData::SRV(SRV::new(0, 100, port, target)))
            }
            Data::Cname(name) if matches(RecordType::CNAME) => {
                absolute(&name).map(|n| RData::CNAME(CNAME(n)))
            }
            Data::Ptr(name) if matches(RecordType::PTR) => absolute(&name).map(|n| RData::PTR(PTR(n))),
            Data::Ns(name) if matches(RecordType::NS) => absolute(&name).map(|n| RData::NS(NS(n))),
            Data::Txt(text) if matches(RecordType::TXT) => Some(RData::TXT(TXT::new(vec![text]))),
            _ => None,
        };
        answer.answers.extend(rdata.map(|rdata| record(owner.clone(), rdata)));
    }
}

fn record(owner: Name, data: RData) -> Record {
    Record::from_rdata(owner, TTL, data)
}

/// The authority over a name of ours, which bounds for how long its absence may be remembered.
fn soa(zone: &Zone, name: &str) -> Option<Record> {
    let owner = match name.strip_suffix(".in-addr.arpa") {
        // Addresses are named under their first octet.
        Some(octets) => absolute(&format!("{}.in-addr.arpa", octets.rsplit('.').next()?))?,
        None => absolute(zone.domain())?,
    };
    let server = absolute(&format!("ns.dns.{}", zone.domain()))?;
    let contact = absolute(&format!("hostmaster.{}", zone.domain()))?;
    let soa = SOA::new(server, contact, zone.serial(), 7200, 1800, 86400, TTL);
    Some(record(owner, RData::SOA(soa)))
}

fn absolute(name: &str) -> Option<Name> {
    let mut name = Name::from_ascii(name).ok()?;
    name.set_fqdn(true);
    Some(name)
}

/// The most that the client takes.
fn limit(request: &Message, transport: Transport) -> usize {
    match (transport, &request.edns) {
        (Transport::Tcp, _) => usize::from(u16::MAX),
        (Transport::Udp, None) => 512,
        (Transport::Udp, Some(edns)) => usize::from(edns.max_payload().clamp(512, UDP_LIMIT)),
    }
}

/// The bytes of an answer: without what is merely helpful if it is too long, then cut.
pub fn encode(answer: &Message, limit: usize) -> Vec<u8> {
    let fits = |message: &Message| message.to_vec().ok().filter(|bytes| bytes.len() <= limit);
    if let Some(bytes) = fits(answer) {
        return bytes;
    }
    let mut shorter = answer.clone();
    shorter.additionals.clear();
    if let Some(bytes) = fits(&shorter) {
        return bytes;
    }
    // The length of a record is about that of the others: two attempts find a number that fits.
    shorter.metadata.truncation = true;
    shorter.authorities.clear();
    while !shorter.answers.is_empty() {
        shorter.answers.truncate(shorter.answers.len() / 2);
        if let Some(bytes) = fits(&shorter) {
            return bytes;
        }
    }
    shorter.truncate().to_vec().unwrap_or_default()
}

/// An answer to what cannot be parsed, if at least its header can.
fn malformed(request: &[u8]) -> Reply {
    let (Some(&[high, low]), Some(flags)) =
        (request.get(..2).and_then(|b| b.first_chunk::<2>()), request.get(2))
    else {
        return Reply::Ignore;
    };
    if request.len() < 12 || flags & 0x80 != 0 {
        return Reply::Ignore;
    }
    let answer = Message::error_msg(u16::from_be_bytes([high, low]), OpCode::Query, ResponseCode::FormErr);
    Reply::Send(answer.to_vec().unwrap_or_default())
}

/// The failure that a client gets when no upstream resolver answers.
pub fn failure(request: &Message, code: ResponseCode) -> Vec<u8> {
    let mut answer = Message::error_msg(request.metadata.id, request.metadata.op_code, code);
    answer.metadata.recursion_desired = request.metadata.recursion_desired;
    answer.metadata.recursion_available = true;
    answer.add_queries(request.queries.iter().cloned());
    answer.to_vec().unwrap_or_default()
}

#[cfg(test)]
mod tests;
