use super::*;

fn parse(rest: &str) -> Result<FileConfig, ConfigError> {
    super::parse(&format!(
        "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n{rest}"
    ))
}

#[track_caller]
fn refuses(rest: &str, expected: &[&str]) {
    match parse(rest) {
        Err(ConfigError(problems)) => assert_eq!(problems, expected),
        Ok(config) => panic!("accepted: {config:?}"),
    }
}

fn filters(profile: &Profile) -> Vec<&str> {
    profile.filters.iter().map(|filter| filter.name()).collect()
}

fn scores(profile: &Profile) -> Vec<(&str, i64)> {
    profile.scores.iter().map(|score| (score.plugin.name(), score.weight)).collect()
}

#[test]
fn an_empty_file_is_the_default_profile() {
    let config = parse("").unwrap();
    assert_eq!(config.profiles.len(), 1);
    assert_eq!(filters(&config.profiles[0]), FILTERS);
    assert_eq!(scores(&config.profiles[0]), SCORES);
    assert_eq!(config.profiles[0].name, "default-scheduler");
    assert_eq!(config.backoff, (Duration::from_secs(1), Duration::from_secs(10)));
}

/// The documentation's own example of two profiles, the second of which scores nothing.
#[test]
fn several_profiles_stand_beside_each_other() {
    let config = parse(
        "
percentageOfNodesToScore: 50
profiles:
  - schedulerName: default-scheduler
  - schedulerName: no-scoring-scheduler
    percentageOfNodesToScore: 20
    plugins:
      preScore: {disabled: [{name: '*'}]}
      score: {disabled: [{name: '*'}]}
",
    )
    .unwrap();
    let [first, second] = &config.profiles[..] else { panic!("{config:?}") };
    assert_eq!((scores(first).len(), scores(second).len()), (SCORES.len(), 0));
    assert_eq!((first.percentage, second.percentage), (50, 20));
    assert_eq!((&*first.name, &*second.name), ("default-scheduler", "no-scoring-scheduler"));
    assert_eq!(filters(second), FILTERS);
}

#[test]
fn plugins_are_enabled_disabled_and_weighted() {
    let config = parse(
        "
profiles:
  - plugins:
      score:
        disabled: [{name: PodTopologySpread}, {name: NodeResourcesFit}]
        enabled: [{name: NodeResourcesFit, weight: 5}]
      multiPoint:
        enabled: [{name: ImageLocality, weight: 7}]
        disabled: [{name: NodePorts}, {name: DefaultPreemption}]
      preEnqueue: {disabled: [{name: SchedulingGates}]}
",
    )
    .unwrap();
    let profile = &config.profiles[0];
    assert!(!filters(profile).contains(&"NodePorts") && filters(profile).contains(&"PodTopologySpread"));
    assert_eq!(
        scores(profile),
        [
            ("NodeResourcesFit", 5),
            ("TaintToleration", 3),
            ("NodeAffinity", 2),
            ("InterPodAffinity", 2),
            ("NodeResourcesBalancedAllocation", 1),
            ("ImageLocality", 7),
        ]
    );
    assert!(!profile.gates && profile.preemption.is_none());
    let only = parse(
        "profiles: [{plugins: {multiPoint: {disabled: [{name: '*'}], enabled: [{name: NodeResourcesFit}]}}}]",
    );
    let only = only.unwrap();
    assert_eq!(filters(&only.profiles[0]), ["NodeResourcesFit"]);
    assert_eq!(scores(&only.profiles[0]), [("NodeResourcesFit", 1)]);
}

#[test]
fn arguments_reach_their_plugins() {
    let (mut problems, value) =
        (Problems::default(), |text: &str| serde_saphyr::from_str::<Value>(text).unwrap());
    let configs: Vec<v1::PluginConfig> = serde_json::from_value(value(
        "
- name: NodeResourcesFit
  args:
    apiVersion: kubescheduler.config.k8s.io/v1
    kind: NodeResourcesFitArgs
    ignoredResources: [example.com/foo]
    scoringStrategy:
      type: RequestedToCapacityRatio
      resources: [{name: intel.com/foo, weight: 3}, {name: cpu}]
      requestedToCapacityRatio: {shape: [{utilization: 0, score: 0}, {utilization: 100, score: 10}]}
- name: InterPodAffinity
  args: {hardPodAffinityWeight: 42, ignorePreferredTermsOfExistingPods: true}
- name: DefaultPreemption
  args: {minCandidateNodesAbsolute: 5}
- name: NodeResourcesBalancedAllocation
  args: {resources: [{name: cpu}]}
",
    ))
    .unwrap();
    let args = args("profiles[0]", &configs, &mut problems);
    assert_eq!(problems.0, [""; 0]);
    assert_eq!(args.fit.strategy, Strategy::RequestedToCapacityRatio(vec![(0, 0), (100, 100)]));
    assert_eq!(
        args.fit.resources,
        [
            Weighted { resource: Resource::Extended("intel.com/foo".into()), weight: 3 },
            Weighted { resource: Resource::Cpu, weight: 1 }
        ]
    );
    assert_eq!(args.fit.ignored, ["example.com/foo"]);
    assert_eq!((args.affinity.hard_weight, args.affinity.ignore_preferred), (42, true));
    assert_eq!((args.preemption.min_percentage, args.preemption.min_absolute), (10, 5));
    assert_eq!(args.balanced.resources, [Resource::Cpu]);
}

#[test]
fn every_problem_is_told_with_its_field() {
    refuses(
        "percentageOfNodesToScore: 101",
        &["percentageOfNodesToScore: Invalid value: 101: not in valid range [0-100]"],
    );
    refuses(
        "podInitialBackoffSeconds: 0\npodMaxBackoffSeconds: -1",
        &[
            "podInitialBackoffSeconds: Invalid value: 0: must be greater than 0",
            "podMaxBackoffSeconds: Invalid value: -1: must be greater than or equal to PodInitialBackoffSeconds",
        ],
    );
    refuses(
        "profiles: [{schedulerName: a}, {schedulerName: a}, {}]",
        &[r#"profiles[1].schedulerName: Duplicate value: "a""#, "profiles[2].schedulerName: Required value"],
    );
    refuses(
        "profiles: [{plugins: {filter: {enabled: [{name: Nonsense}]}}}]",
        &[
            r#"profiles[0].plugins.filter.enabled[0].name: Invalid value: "Nonsense": there is no such plugin"#,
        ],
    );
    refuses(
        "profiles: [{pluginConfig: [{name: InterPodAffinity, args: {hardPodAffinityWeight: 101}}]}]",
        &[
            "profiles[0].pluginConfig[0].args.hardPodAffinityWeight: Invalid value: 101: not in valid range [0-100]",
        ],
    );
    let at = "profiles[0].pluginConfig[0].args";
    refuses(
        "profiles: [{pluginConfig: [{name: PodTopologySpread, args: {defaultConstraints: [{maxSkew: 0, topologyKey: z, whenUnsatisfiable: Never}], defaultingType: List}}]}]",
        &[
            &format!("{at}.defaultConstraints[0].maxSkew: Invalid value: 0: not in valid range (0, inf)"),
            &format!(
                "{at}.defaultConstraints[0].whenUnsatisfiable: Invalid value: \"Never\": must be DoNotSchedule or ScheduleAnyway"
            ),
        ],
    );
    refuses("extenders: [{urlPrefix: x}]", &["extenders: Forbidden: this scheduler calls no extenders"]);
}

#[test]
fn wrong_types_and_unknown_fields_are_named() {
    let problem = |rest: &str| parse(rest).unwrap_err().to_string();
    let said = problem("profiles: [{schedulerName: [1]}]");
    assert!(said.starts_with("profiles[0].schedulerName: "), "{said}");
    let said =
        problem("profiles: [{pluginConfig: [{name: NodeResourcesFit, args: {scoringStrategy: {type: 1}}}]}]");
    assert!(said.starts_with("profiles[0].pluginConfig[0].args.scoringStrategy.type: "), "{said}");
    let said = problem("percentageOfNodes: 1");
    assert!(said.contains("unknown field `percentageOfNodes`"), "{said}");
    assert!(
        super::parse("apiVersion: v1\nkind: Pod")
            .unwrap_err()
            .to_string()
            .contains("KubeSchedulerConfiguration")
    );
}

#[test]
fn leader_election_is_read_where_it_is_stated() {
    let config =
        parse("leaderElection: {leaderElect: false, leaseDuration: 30s, resourceName: mine}").unwrap();
    let expected = Leader {
        elect: Some(false),
        lease_duration: Some(Duration::from_secs(30)),
        name: Some("mine".into()),
        ..Leader::default()
    };
    assert_eq!(config.leader, expected);
    refuses(
        "leaderElection: {resourceLock: endpoints}",
        &[r#"leaderElection.resourceLock: Invalid value: "endpoints": must be "leases""#],
    );
}
