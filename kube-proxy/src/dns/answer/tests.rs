use proptest::prelude::*;

use super::*;
use crate::dns::zone::tests::zone;

fn ask(name: &str, kind: RecordType) -> Message {
    let mut query = Message::new(7, MessageType::Query, OpCode::Query);
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    query
}

fn sent(request: &Message, transport: Transport, zone: &Zone) -> Message {
    match respond(&request.to_vec().unwrap(), zone, transport, false, 0) {
        Reply::Send(bytes) => Message::from_vec(&bytes).unwrap(),
        other => panic!("{other:?}"),
    }
}

/// Code, answers and the owner of the SOA, as text.
#[track_caller]
fn check(name: &str, kind: RecordType, expected: &str) {
    let answer = sent(&ask(name, kind), Transport::Udp, &zone());
    assert_eq!(answer.metadata.id, 7);
    assert_eq!(answer.queries, ask(name, kind).queries);
    let mut shown = format!("{:?}", answer.metadata.response_code);
    for record in &answer.answers {
        shown += &format!(" {} {}", record.record_type(), record.data);
        assert_eq!(record.ttl, TTL);
    }
    for record in &answer.authorities {
        shown += &format!(" ({} {})", record.name, record.record_type());
    }
    assert_eq!(shown, expected, "{name} {kind}");
}

#[test]
fn answers_as_specified() {
    use RecordType::{A, AAAA, ANY, CNAME, NS, PTR, SOA, SRV, TXT};
    check("web.default.svc.cluster.local.", A, "NoError A 10.96.7.1");
    check("WEB.Default.SVC.cluster.local.", A, "NoError A 10.96.7.1");
    check("web.default.svc.cluster.local.", AAAA, "NoError (cluster.local. SOA)");
    check("web.default.svc.cluster.local.", TXT, "NoError (cluster.local. SOA)");
    check("web.default.svc.cluster.local.", ANY, "NoError A 10.96.7.1");
    check("nope.default.svc.cluster.local.", A, "NXDomain (cluster.local. SOA)");
    check("www.example.com.", A, "NXDomain");
    check("web.", A, "NXDomain");
    check("1.7.96.10.in-addr.arpa.", PTR, "NoError PTR web.default.svc.cluster.local.");
    check("2.7.96.10.in-addr.arpa.", PTR, "NXDomain (10.in-addr.arpa. SOA)");
    check("dns-version.cluster.local.", TXT, "NoError TXT 1.1.0");
    check("cluster.local.", NS, "NoError NS ns.dns.cluster.local.");
    check("far.default.svc.cluster.local.", A, "NoError CNAME example.com.");
    check("far.default.svc.cluster.local.", CNAME, "NoError CNAME example.com.");
    check("alias.default.svc.cluster.local.", A, "NoError CNAME web.default.svc.cluster.local. A 10.96.7.1");
    check(
        "alias.default.svc.cluster.local.",
        AAAA,
        "NoError CNAME web.default.svc.cluster.local. (cluster.local. SOA)",
    );
    check("empty.default.svc.cluster.local.", A, "NoError (cluster.local. SOA)");
    check(
        "_http._tcp.web.default.svc.cluster.local.",
        SRV,
        "NoError SRV 0 100 80 web.default.svc.cluster.local.",
    );
    let soa = sent(&ask("cluster.local.", SOA), Transport::Udp, &zone());
    assert_eq!((soa.answers.len(), soa.authorities.len()), (1, 0));
}

#[test]
fn aliases_of_themselves_end() {
    let answer = sent(&ask("loop.default.svc.cluster.local.", RecordType::A), Transport::Tcp, &zone());
    assert_eq!(answer.answers.len(), ALIASES);
}

#[test]
fn glue_follows_srv() {
    let answer =
        sent(&ask("_peer._tcp.db.default.svc.cluster.local.", RecordType::SRV), Transport::Udp, &zone());
    assert_eq!((answer.answers.len(), answer.additionals.len()), (2, 2));
}

#[test]
fn addresses_take_turns_to_be_first() {
    let request = ask("db.default.svc.cluster.local.", RecordType::A).to_vec().unwrap();
    let first = |turn| match respond(&request, &zone(), Transport::Udp, false, turn) {
        Reply::Send(bytes) => Message::from_vec(&bytes).unwrap().answers[0].data.to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!([first(0), first(1), first(2)], ["10.244.0.5", "10.244.1.6", "10.244.0.5"]);
}

#[test]
fn nothing_is_denied_before_the_first_generation() {
    let zone = Zone::new("cluster.local", vec![]);
    let answer = sent(&ask("web.default.svc.cluster.local.", RecordType::A), Transport::Udp, &zone);
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
}

#[test]
fn other_names_are_forwarded_when_there_is_somebody_to_ask() {
    let reply = |name: &str, zone: &Zone| {
        respond(&ask(name, RecordType::A).to_vec().unwrap(), zone, Transport::Udp, true, 0)
    };
    assert!(matches!(reply("example.com.", &zone()), Reply::Forward(_)));
    assert!(matches!(reply("example.com.", &Zone::new("cluster.local", vec![])), Reply::Forward(_)));
    assert!(matches!(reply("nope.default.svc.cluster.local.", &zone()), Reply::Send(_)));
    let Reply::Chase { answer, target, .. } = reply("far.default.svc.cluster.local.", &zone()) else {
        panic!("the alias is followed")
    };
    assert_eq!((answer.answers.len(), target.to_ascii().as_str()), (1, "example.com."));
}

#[test]
fn bad_requests_are_refused_with_their_code() {
    let code = |request: &Message| sent(request, Transport::Udp, &zone()).metadata.response_code;
    let good = ask("web.default.svc.cluster.local.", RecordType::A);
    let mut update = good.clone();
    update.metadata.op_code = OpCode::Notify;
    assert_eq!(code(&update), ResponseCode::NotImp);
    let mut two = good.clone();
    two.add_query(two.queries[0].clone());
    assert_eq!(code(&two), ResponseCode::FormErr);
    assert_eq!(code(&ask("cluster.local.", RecordType::AXFR)), ResponseCode::Refused);
    let mut chaos = good.clone();
    chaos.queries[0].set_query_class(DNSClass::CH);
    assert_eq!(code(&chaos), ResponseCode::Refused);
    let mut modern = good.clone();
    let mut edns = Edns::new();
    edns.set_version(1);
    modern.set_edns(edns);
    assert_eq!(u16::from(code(&modern)), u16::from(ResponseCode::BADVERS));
    let mut response = good;
    response.metadata.message_type = MessageType::Response;
    assert!(matches!(respond(&response.to_vec().unwrap(), &zone(), Transport::Udp, false, 0), Reply::Ignore));
    assert!(matches!(respond(&[0; 11], &zone(), Transport::Udp, false, 0), Reply::Ignore));
    let mut garbage = vec![0, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    garbage.extend([63; 20]);
    let Reply::Send(bytes) = respond(&garbage, &zone(), Transport::Udp, false, 0) else {
        panic!("an answer")
    };
    let answer = Message::from_vec(&bytes).unwrap();
    assert_eq!((answer.metadata.id, answer.metadata.response_code), (9, ResponseCode::FormErr));
}

#[test]
fn long_answers_are_cut_over_udp_and_whole_over_tcp() {
    use crate::model::{Backend, Kind, ServiceModel};
    let backend = |i: u32| Backend {
        ip: std::net::Ipv4Addr::from(0x0af4_0000 + i),
        hostname: format!("db-{i}"),
        ports: vec![("peer".into(), crate::model::Protocol::Tcp, 1)],
    };
    let big = ServiceModel {
        namespace: "default".into(),
        name: "big".into(),
        kind: Kind::Headless { backends: (1..=1000).map(backend).collect() },
        ports: vec![],
        internal_local: false,
        external_local: false,
        affinity: None,
    };
    let mut zone = zone();
    zone.set("default/big", Some(std::sync::Arc::new(big)));
    let request = ask("big.default.svc.cluster.local.", RecordType::A);
    let udp = sent(&request, Transport::Udp, &zone);
    assert!(udp.metadata.truncation && !udp.answers.is_empty() && udp.to_vec().unwrap().len() <= 512);
    let mut with_edns = request.clone();
    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    with_edns.set_edns(edns);
    let udp = sent(&with_edns, Transport::Udp, &zone);
    assert!(udp.edns.is_some() && udp.metadata.truncation);
    let length = udp.to_vec().unwrap().len();
    assert!((513..=1232).contains(&length), "{length}");
    let tcp = sent(&request, Transport::Tcp, &zone);
    assert_eq!((tcp.answers.len(), tcp.metadata.truncation), (1000, false));
    let srv = sent(&ask("_peer._tcp.big.default.svc.cluster.local.", RecordType::SRV), Transport::Tcp, &zone);
    assert!(srv.answers.len() >= 500, "{}", srv.answers.len());
}

proptest! {
    #[test]
    fn any_datagram_is_answered_without_panic(data in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = respond(&data, &zone(), Transport::Udp, true, 1);
    }

    #[test]
    fn any_name_is_answered_within_the_limit(name in "([a-z0-9_]{1,9}\\.){0,6}(svc|pod)\\.cluster\\.local\\.") {
        let answer = sent(&ask(&name, RecordType::ANY), Transport::Udp, &zone());
        prop_assert!(answer.to_vec().unwrap().len() <= 512);
    }
}
