//! The configuration file, in upstream's format: `--config` with a `KubeSchedulerConfiguration` of
//! `kubescheduler.config.k8s.io/v1`. What is wrong is told with the field's path, all at once.

use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::plugins::default_preemption::{self, DefaultPreemption};
use crate::plugins::inter_pod_affinity::InterPodAffinity;
use crate::plugins::node_affinity::NodeAffinity;
use crate::plugins::node_resources_balanced_allocation::NodeResourcesBalancedAllocation;
use crate::plugins::node_resources_fit::{NodeResourcesFit, Resource, Strategy, Weighted};
use crate::plugins::pod_topology_spread::PodTopologySpread;
use crate::plugins::scheduling_gates;
use crate::pod::DEFAULT_SCHEDULER;
use crate::profile::{self, Args, FILTERS, MOST, Profile, SCORES};
use crate::terms::{Constraint, Labels};

mod v1;

/// Upstream's plugins that are part of the machinery here, or do nothing without kinds that are not there:
/// they may be named, and change nothing.
const BUILT_IN: &[&str] = &[
    "PrioritySort",
    "DefaultBinder",
    "VolumeRestrictions",
    "VolumeZone",
    "DynamicResources",
    "NodeDeclaredFeatures",
    "GangScheduling",
];

/// What a file says.
#[derive(Debug)]
pub struct FileConfig {
    /// The profiles, at least one.
    pub profiles: Vec<Profile>,
    /// How long a pod waits after its first decision in vain, and at most.
    pub backoff: (Duration, Duration),
    /// Leader election, where the file speaks of it.
    pub leader: Leader,
}

/// Leader election as a file states it; what is `None` is left to the flags.
#[derive(Debug, Default, PartialEq)]
pub struct Leader {
    /// Whether instances contend at all.
    pub elect: Option<bool>,
    /// The Lease's name.
    pub name: Option<String>,
    /// The Lease's namespace.
    pub namespace: Option<String>,
    /// How long a leader that is not heard of leads.
    pub lease_duration: Option<Duration>,
    /// For how long a leader tries to renew.
    pub renew_deadline: Option<Duration>,
    /// The pause between attempts.
    pub retry_period: Option<Duration>,
}

/// What is wrong with a file, field by field.
#[derive(Debug, thiserror::Error, PartialEq)]
#[error("{}", .0.join("; "))]
pub struct ConfigError(pub Vec<String>);

/// Collects what is wrong.
#[derive(Default)]
struct Problems(Vec<String>);

impl Problems {
    fn invalid(&mut self, field: &str, value: impl std::fmt::Display, why: &str) {
        self.0.push(format!("{field}: Invalid value: {value}: {why}"));
    }

    fn range(&mut self, field: &str, value: Option<i64>, from: i64, to: i64) {
        if let Some(value) = value.filter(|value| !(from..=to).contains(value)) {
            self.invalid(field, value, &format!("not in valid range [{from}-{to}]"));
        }
    }

    fn duration(&mut self, field: &str, text: Option<&String>) -> Option<Duration> {
        match component::flags::duration(text?) {
            Ok(duration) => Some(duration),
            Err(why) => {
                self.invalid(field, format!("{text:?}"), &why);
                None
            }
        }
    }
}

/// Reads a file's text; YAML, of which JSON is a part.
pub fn parse(text: &str) -> Result<FileConfig, ConfigError> {
    let value: Value = serde_saphyr::from_str(text).map_err(|e| ConfigError(vec![e.to_string()]))?;
    let (version, kind) = (&value["apiVersion"], &value["kind"]);
    if version != "kubescheduler.config.k8s.io/v1" || kind != "KubeSchedulerConfiguration" {
        return Err(ConfigError(vec![format!(
            "no kind {kind} is registered for version {version}: \
             expected KubeSchedulerConfiguration of kubescheduler.config.k8s.io/v1"
        )]));
    }
    let file: v1::KubeSchedulerConfiguration = typed("", value).map_err(|e| ConfigError(vec![e]))?;
    let mut problems = Problems::default();
    let config = read(file, &mut problems);
    if problems.0.is_empty() { Ok(config) } else { Err(ConfigError(problems.0)) }
}

/// Decodes, and names the field that cannot be.
fn typed<T: DeserializeOwned>(at: &str, value: Value) -> Result<T, String> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let path = match (at, path.as_str()) {
            (at, ".") => at.to_owned(),
            ("", path) => path.to_owned(),
            (at, path) => format!("{at}.{path}"),
        };
        format!("{path}: {}", error.into_inner())
    })
}

fn read(file: v1::KubeSchedulerConfiguration, problems: &mut Problems) -> FileConfig {
    problems.range("percentageOfNodesToScore", file.percentage_of_nodes_to_score.map(i64::from), 0, 100);
    let first = file.pod_initial_backoff_seconds.unwrap_or(1);
    let last = file.pod_max_backoff_seconds.unwrap_or(10);
    if first <= 0 {
        problems.invalid("podInitialBackoffSeconds", first, "must be greater than 0");
    }
    if last < first {
        problems.invalid(
            "podMaxBackoffSeconds",
            last,
            "must be greater than or equal to PodInitialBackoffSeconds",
        );
    }
    if !file.extenders.is_empty() {
        problems.0.push("extenders: Forbidden: this scheduler calls no extenders".into());
    }
    let election = &file.leader_election;
    if let Some(lock) = election.resource_lock.as_deref().filter(|lock| *lock != "leases") {
        problems.invalid("leaderElection.resourceLock", format!("{lock:?}"), "must be \"leases\"");
    }
    let leader = Leader {
        elect: election.leader_elect,
        name: election.resource_name.clone(),
        namespace: election.resource_namespace.clone(),
        lease_duration: problems.duration("leaderElection.leaseDuration", election.lease_duration.as_ref()),
        renew_deadline: problems.duration("leaderElection.renewDeadline", election.renew_deadline.as_ref()),
        retry_period: problems.duration("leaderElection.retryPeriod", election.retry_period.as_ref()),
    };
    let whole = file.percentage_of_nodes_to_score.unwrap_or(0);
    let single = file.profiles.len() == 1;
    let mut profiles: Vec<Profile> = Vec::new();
    for (i, written) in file.profiles.into_iter().enumerate() {
        let at = format!("profiles[{i}]");
        let name = match written.scheduler_name.as_deref() {
            None | Some("") if single => DEFAULT_SCHEDULER.to_owned(),
            None | Some("") => {
                problems.0.push(format!("{at}.schedulerName: Required value"));
                continue;
            }
            Some(name) => name.to_owned(),
        };
        if profiles.iter().any(|other| other.name == name) {
            problems.0.push(format!("{at}.schedulerName: Duplicate value: {name:?}"));
        }
        let own = written.percentage_of_nodes_to_score;
        problems.range(&format!("{at}.percentageOfNodesToScore"), own.map(i64::from), 0, 100);
        let percentage = usize::try_from(own.unwrap_or(whole)).unwrap_or(0);
        profiles.push(profile_of(&at, name, percentage, written, problems));
    }
    if profiles.is_empty() {
        profiles.push(Profile { percentage: usize::try_from(whole).unwrap_or(0), ..Profile::default() });
    }
    let seconds = |n: i64| Duration::from_secs(u64::try_from(n).unwrap_or(0));
    FileConfig { profiles, backoff: (seconds(first), seconds(last)), leader }
}

fn profile_of(
    at: &str,
    name: String,
    percentage: usize,
    written: v1::Profile,
    problems: &mut Problems,
) -> Profile {
    let args = args(at, &written.plugin_config, problems);
    let plugins = &written.plugins;
    check_names(at, plugins, problems);
    let multi = &plugins.multi_point;
    // Most plugins that filter prepare for it, and their preparation alone cannot be switched.
    let chosen = |own: &v1::PluginSet, defaults: &[(&str, i64)]| choose(multi, own, defaults);
    let unweighted: Vec<(&str, i64)> = FILTERS.iter().map(|name| (*name, 1)).collect();
    let filters = chosen(&plugins.filter, &unweighted);
    let scores = chosen(&plugins.score, SCORES);
    let one = |own: &v1::PluginSet, name: &str| !chosen(own, &[(name, 1)]).is_empty();
    let weighted = |(name, weight): &(String, i64)| {
        Some(profile::Weighted { plugin: profile::score(name, &args)?, weight: *weight })
    };
    let scores: Vec<_> = scores.iter().filter_map(weighted).take(MOST).collect();
    if scores.iter().any(|score| !(1..=i64::from(i32::MAX) / 1000).contains(&score.weight)) {
        problems
            .0
            .push(format!("{at}.plugins.score: Invalid value: weights must be positive and not overflow"));
    }
    Profile {
        name,
        filters: filters.iter().filter_map(|(name, _)| profile::filter(name, &args)).collect(),
        scores,
        gates: one(&plugins.pre_enqueue, scheduling_gates::NAME),
        preemption: one(&plugins.post_filter, default_preemption::NAME).then(|| args.preemption.clone()),
        percentage,
    }
}

/// Which of the plugins that serve an extension point are enabled there, in their order, and their weights.
fn choose(multi: &v1::PluginSet, own: &v1::PluginSet, defaults: &[(&str, i64)]) -> Vec<(String, i64)> {
    let serves = |name: &str| defaults.iter().any(|(known, _)| *known == name);
    let off = |set: &v1::PluginSet, name: &str| set.disabled.iter().any(|p| p.name == name || p.name == "*");
    let weight_of = |plugin: &v1::Plugin, default: i64| plugin.weight.filter(|w| *w != 0).unwrap_or(default);
    // The specific extension point goes before what holds for all of them.
    let mut chosen: Vec<(String, i64)> = Vec::new();
    for plugin in own.enabled.iter().filter(|plugin| serves(&plugin.name)) {
        chosen.push((plugin.name.clone(), weight_of(plugin, 1)));
    }
    let mut add = |name: &str, weight: i64| {
        if !off(own, name) && !chosen.iter().any(|(known, _)| known == name) {
            chosen.push((name.to_owned(), weight));
        }
    };
    for (name, weight) in defaults.iter().filter(|(name, _)| !off(multi, name)) {
        let again = multi.enabled.iter().find(|plugin| plugin.name == *name);
        add(name, again.map_or(*weight, |plugin| weight_of(plugin, *weight)));
    }
    for plugin in multi.enabled.iter().filter(|plugin| serves(&plugin.name)) {
        add(&plugin.name, weight_of(plugin, 1));
    }
    chosen
}

fn check_names(at: &str, plugins: &v1::Plugins, problems: &mut Problems) {
    let known = |name: &str| {
        FILTERS.contains(&name)
            || SCORES.iter().any(|(score, _)| *score == name)
            || [scheduling_gates::NAME, default_preemption::NAME].contains(&name)
            || BUILT_IN.contains(&name)
    };
    let sets = [
        ("multiPoint", &plugins.multi_point),
        ("preEnqueue", &plugins.pre_enqueue),
        ("queueSort", &plugins.queue_sort),
        ("preFilter", &plugins.pre_filter),
        ("filter", &plugins.filter),
        ("postFilter", &plugins.post_filter),
        ("preScore", &plugins.pre_score),
        ("score", &plugins.score),
        ("reserve", &plugins.reserve),
        ("permit", &plugins.permit),
        ("preBind", &plugins.pre_bind),
        ("bind", &plugins.bind),
        ("postBind", &plugins.post_bind),
    ];
    for (point, set) in sets {
        for (i, plugin) in set.enabled.iter().enumerate().filter(|(_, plugin)| !known(&plugin.name)) {
            let field = format!("{at}.plugins.{point}.enabled[{i}].name");
            problems.invalid(&field, format!("{:?}", plugin.name), "there is no such plugin");
        }
    }
}

fn args(at: &str, written: &[v1::PluginConfig], problems: &mut Problems) -> Args {
    let mut args = Args::default();
    let mut seen: Vec<&str> = Vec::new();
    for (i, config) in written.iter().enumerate() {
        let at = format!("{at}.pluginConfig[{i}]");
        if seen.contains(&config.name.as_str()) {
            problems.0.push(format!("{at}: Duplicate value: {:?}", config.name));
        }
        seen.push(&config.name);
        let value = config.args.clone().unwrap_or(Value::Object(Default::default()));
        let at = format!("{at}.args");
        let outcome = match config.name.as_str() {
            "NodeResourcesFit" => typed(&at, value).map(|a| args.fit = fit(&at, a, problems)),
            "NodeResourcesBalancedAllocation" => {
                typed(&at, value).map(|a| args.balanced = balanced(&at, &a, problems))
            }
            "PodTopologySpread" => typed(&at, value).map(|a| args.spread = spread(&at, &a, problems)),
            "InterPodAffinity" => typed(&at, value).map(|a| args.affinity = affinity(&at, &a, problems)),
            "NodeAffinity" => typed(&at, value).map(|a: v1::NodeAffinityArgs| {
                args.node_affinity =
                    a.added_affinity.as_ref().map(NodeAffinity::with_added).unwrap_or_default();
            }),
            "DefaultPreemption" => typed(&at, value).map(|a| args.preemption = preemption(&at, &a, problems)),
            "VolumeBinding" => typed(&at, value).map(|_: v1::VolumeBindingArgs| ()),
            name if BUILT_IN.contains(&name) => Ok(()),
            name => Err(format!("{at}: Invalid value: {name:?}: there is no such plugin")),
        };
        problems.0.extend(outcome.err());
    }
    args
}

fn weighted(at: &str, written: &[v1::ResourceSpec], problems: &mut Problems) -> Vec<Weighted> {
    let one = |(i, spec): (usize, &v1::ResourceSpec)| {
        problems.range(&format!("{at}[{i}].weight"), spec.weight, 1, 100);
        Weighted { resource: Resource::named(&spec.name), weight: spec.weight.unwrap_or(1) }
    };
    written.iter().enumerate().map(one).collect()
}

fn fit(at: &str, written: v1::FitArgs, problems: &mut Problems) -> NodeResourcesFit {
    let mut fit = NodeResourcesFit {
        ignored: written.ignored_resources,
        ignored_groups: written.ignored_resource_groups,
        ..NodeResourcesFit::default()
    };
    for (i, group) in fit.ignored_groups.iter().enumerate().filter(|(_, group)| group.contains('/')) {
        let field = format!("{at}.ignoredResourceGroups[{i}]");
        problems.invalid(&field, format!("{group:?}"), "resource group name can't contain '/'");
    }
    let Some(strategy) = written.scoring_strategy else { return fit };
    let at = format!("{at}.scoringStrategy");
    if !strategy.resources.is_empty() {
        fit.resources = weighted(&format!("{at}.resources"), &strategy.resources, problems);
    }
    let ratio = strategy.requested_to_capacity_ratio.as_ref();
    fit.strategy = match strategy.r#type.as_deref() {
        None | Some("LeastAllocated") => Strategy::LeastAllocated,
        Some("MostAllocated") => Strategy::MostAllocated,
        Some("RequestedToCapacityRatio") => {
            let points = ratio.map(|ratio| ratio.shape.as_slice()).unwrap_or_default();
            Strategy::RequestedToCapacityRatio(shape(&at, points, problems))
        }
        Some(other) => {
            problems.0.push(format!(
                "{at}.type: Unsupported value: {other:?}: supported values: \
                 \"LeastAllocated\", \"MostAllocated\", \"RequestedToCapacityRatio\""
            ));
            Strategy::LeastAllocated
        }
    };
    fit
}

/// Points of a file are scored from 0 to 10, nodes from 0 to 100.
fn shape(at: &str, points: &[v1::Point], problems: &mut Problems) -> Vec<(i64, i64)> {
    let at = format!("{at}.requestedToCapacityRatio.shape");
    if points.is_empty() {
        problems.0.push(format!("{at}: Required value: at least one point must be specified"));
    }
    for (i, point) in points.iter().enumerate() {
        problems.range(&format!("{at}[{i}].utilization"), Some(point.utilization), 0, 100);
        problems.range(&format!("{at}[{i}].score"), Some(point.score), 0, 10);
        if i > 0 && point.utilization <= points[i - 1].utilization {
            let why = "utilization values must be sorted in increasing order";
            problems.invalid(&format!("{at}[{i}].utilization"), point.utilization, why);
        }
    }
    points.iter().map(|point| (point.utilization, point.score * 10)).collect()
}

fn balanced(
    at: &str,
    written: &v1::BalancedArgs,
    problems: &mut Problems,
) -> NodeResourcesBalancedAllocation {
    if written.resources.is_empty() {
        return NodeResourcesBalancedAllocation::default();
    }
    let resources = weighted(&format!("{at}.resources"), &written.resources, problems);
    if let Some(i) = resources.iter().position(|resource| resource.weight != 1) {
        problems.invalid(&format!("{at}.resources[{i}].weight"), resources[i].weight, "must be 1");
    }
    let resources = resources.into_iter().map(|weighted| weighted.resource).collect();
    NodeResourcesBalancedAllocation { resources }
}

fn spread(at: &str, written: &v1::SpreadArgs, problems: &mut Problems) -> PodTopologySpread {
    let constraints = &written.default_constraints;
    for (i, constraint) in constraints.iter().enumerate() {
        let at = format!("{at}.defaultConstraints[{i}]");
        if constraint.max_skew <= 0 {
            problems.invalid(&format!("{at}.maxSkew"), constraint.max_skew, "not in valid range (0, inf)");
        }
        if constraint.topology_key.is_empty() {
            problems.0.push(format!("{at}.topologyKey: Required value: can not be empty"));
        }
        if !["DoNotSchedule", "ScheduleAnyway"].contains(&constraint.when_unsatisfiable.as_str()) {
            let value = format!("{:?}", constraint.when_unsatisfiable);
            problems.invalid(
                &format!("{at}.whenUnsatisfiable"),
                value,
                "must be DoNotSchedule or ScheduleAnyway",
            );
        }
        if constraint.label_selector.is_some() {
            problems.0.push(format!(
                "{at}.labelSelector: Forbidden: constraint must not define a selector, as they deduced for each pod"
            ));
        }
    }
    match written.defaulting_type.as_deref() {
        None | Some("System") if constraints.is_empty() => PodTopologySpread::default(),
        Some("System") => {
            let why = "when .defaultingType is System, must be empty";
            problems.invalid(&format!("{at}.defaultConstraints"), constraints.len(), why);
            PodTopologySpread::default()
        }
        None | Some("List") => {
            let none = Labels::new();
            PodTopologySpread::with_defaults(constraints.iter().map(|c| Constraint::of(c, &none)).collect())
        }
        Some(other) => {
            problems.0.push(format!(
                "{at}.defaultingType: Unsupported value: {other:?}: supported values: \"System\", \"List\""
            ));
            PodTopologySpread::default()
        }
    }
}

fn affinity(at: &str, written: &v1::AffinityArgs, problems: &mut Problems) -> InterPodAffinity {
    let weight = written.hard_pod_affinity_weight;
    problems.range(&format!("{at}.hardPodAffinityWeight"), weight.map(i64::from), 0, 100);
    InterPodAffinity {
        hard_weight: weight.unwrap_or(InterPodAffinity::default().hard_weight),
        ignore_preferred: written.ignore_preferred_terms_of_existing_pods,
    }
}

fn preemption(at: &str, written: &v1::PreemptionArgs, problems: &mut Problems) -> DefaultPreemption {
    let default = DefaultPreemption::default();
    let (percentage, absolute) =
        (written.min_candidate_nodes_percentage, written.min_candidate_nodes_absolute);
    problems.range(&format!("{at}.minCandidateNodesPercentage"), percentage.map(i64::from), 0, 100);
    if let Some(absolute) = absolute.filter(|absolute| *absolute < 0) {
        problems.invalid(&format!("{at}.minCandidateNodesAbsolute"), absolute, "not in valid range [0, inf)");
    }
    if (percentage, absolute) == (Some(0), Some(0)) {
        let why = "cannot be zero at the same time as minCandidateNodesAbsolute";
        problems.invalid(&format!("{at}.minCandidateNodesPercentage"), 0, why);
    }
    let number = |n: Option<i32>, default: usize| n.map_or(default, |n| usize::try_from(n).unwrap_or(0));
    DefaultPreemption {
        min_percentage: number(percentage, default.min_percentage),
        min_absolute: number(absolute, default.min_absolute),
    }
}

#[cfg(test)]
mod tests;
