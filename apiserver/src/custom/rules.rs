//! The rules of a custom kind, made from one version of its definition.

use api::Kind;
use api::Object;
use api::apply::DocumentType;
use api::openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinitionVersion, CustomResourceSubresourceScale,
};
use api::status::StatusError;
use api::validation::{FieldError, dns_subdomain};
use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;
use jiff::Timestamp;
use kube_cel::{CompiledSchema, ErrorKind, RootContext, Validator, compile_schema};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::columns::Columns;
use super::path::Path;
use super::schema::{Schema, default, prune, validate};
use crate::registry::strategy::{Column, ErasedStrategy, UpdatePath};
use crate::storage::entry::FieldDefinition;

/// The rules of one version of a custom kind.
pub struct Rules {
    group: String,
    kind: String,
    api_version: String,
    stored_version: String,
    schema: Schema,
    /// The schema as it was written, compressed: who asks for it is rare, and large it is often.
    source: Vec<u8>,
    digest: [u8; 32],
    document: DocumentType,
    has_defaults: bool,
    cel: Option<CompiledSchema>,
    columns: Columns,
    fields: Vec<(&'static str, Path)>,
    scale: Option<ScalePaths>,
}

impl std::fmt::Debug for Rules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Rules({} {})", self.api_version, self.kind)
    }
}

/// Where an object has what its Scale shows, as JSON pointers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScalePaths {
    /// The replicas that are wanted.
    pub spec_replicas: String,
    /// The replicas that there are.
    pub status_replicas: String,
    /// The selector of the pods, as text.
    pub selector: Option<String>,
}

impl ScalePaths {
    fn of(scale: &CustomResourceSubresourceScale) -> Option<Self> {
        let pointer = |path: &str| Path::parse(path)?.pointer();
        Some(Self {
            spec_replicas: pointer(&scale.spec_replicas_path)?,
            status_replicas: pointer(&scale.status_replicas_path)?,
            selector: scale.label_selector_path.as_deref().and_then(pointer),
        })
    }
}

/// The rules of a custom kind; nothing for a built-in one.
pub fn of(kind: &Kind) -> Option<&'static Rules> {
    kind.custom.and_then(|rules| rules.downcast_ref())
}

fn pack(json: &Value) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    serde_json::to_writer(&mut encoder, json).expect("JSON values always encode");
    encoder.finish().expect("memory can be written to")
}

impl Rules {
    /// The rules of a version. A schema that cannot be read, which validation of definitions refuses, allows
    /// nothing but metadata.
    pub fn new(group: &str, kind: &str, storage: &str, version: &CustomResourceDefinitionVersion) -> Self {
        let json = version.schema.as_ref().and_then(|s| s.open_api_v3_schema.as_ref()).map(|s| json!(s));
        let json = json.unwrap_or_else(|| json!({}));
        let schema = Schema::parse(&json).unwrap_or_default();
        let fields = version.selectable_fields.iter().flatten().filter_map(|field| {
            let path = Path::parse(&field.json_path)?;
            Some((api::kinds::custom::keep(field.json_path.trim_start_matches('.')), path))
        });
        let scale = version.subresources.as_ref().and_then(|s| s.scale.as_ref());
        Self {
            group: group.to_owned(),
            kind: kind.to_owned(),
            api_version: format!("{group}/{}", version.name),
            stored_version: format!("{group}/{storage}"),
            has_defaults: schema.has_defaults(),
            schema,
            source: pack(&json),
            digest: Sha256::digest(json!([version, json]).to_string()).into(),
            document: DocumentType::custom(&json),
            cel: json.to_string().contains("\"x-kubernetes-validations\"").then(|| compile_schema(&json)),
            columns: Columns::new(version.additional_printer_columns.as_deref().unwrap_or_default()),
            fields: fields.collect(),
            scale: scale.and_then(ScalePaths::of),
        }
    }

    /// The `apiVersion` under which objects are stored.
    pub fn stored_version(&self) -> &str {
        &self.stored_version
    }

    /// The schema as it was written; empty where there is none.
    pub fn source(&self) -> Value {
        serde_json::from_reader(ZlibDecoder::new(&*self.source)).expect("it was packed here")
    }

    /// A digest of the version: another one makes another document.
    pub fn digest(&self) -> &[u8] {
        &self.digest
    }

    /// How objects merge when they are applied.
    pub fn document_type(&self) -> &DocumentType {
        &self.document
    }

    /// Where the Scale finds what it shows.
    pub fn scale(&self) -> Option<&ScalePaths> {
        self.scale.as_ref()
    }

    /// The paths of what the schema does not name.
    pub fn unknown_fields(&self, document: &Value) -> Vec<String> {
        prune::prune(&self.schema, &mut document.clone())
    }

    /// A stored object in this version. Nothing when it is as it must be already.
    pub fn read(&self, json: &[u8]) -> Option<Vec<u8>> {
        let head = format!("{{\"apiVersion\":\"{}\"", self.api_version);
        if !self.has_defaults && json.starts_with(head.as_bytes()) {
            return None;
        }
        let mut object = Object::parse(json).ok()?;
        object.as_map_mut().insert("apiVersion".into(), self.api_version.clone().into());
        let mut value = object.into_value();
        default::apply(&self.schema, &mut value);
        serde_json::to_vec(&value).ok()
    }

    fn shaped(&self, object: Object) -> Value {
        let mut value = object.into_value();
        prune::prune(&self.schema, &mut value);
        default::apply(&self.schema, &mut value);
        value
    }

    fn errors(&self, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let mut errors = validate::validate(&self.schema, new, old);
        let Some(cel) = &self.cel else { return errors };
        const BLOCKING: [&str; 4] =
            ["FieldValueRequired", "FieldValueTooLong", "FieldValueTooMany", "FieldValueTypeInvalid"];
        if errors.iter().any(|e| BLOCKING.contains(&e.reason)) {
            let detail = "some validation rules were not checked because the object was invalid; correct the \
                existing errors to complete validation";
            errors.push(FieldError::invalid("<nil>", Value::Null, detail));
            return errors;
        }
        let root = RootContext {
            api_version: self.api_version.clone(),
            api_group: self.group.clone(),
            kind: self.kind.clone(),
        };
        if let Err(failures) = Validator::new().validate_compiled_with_context(cel, new, old, Some(&root)) {
            errors.extend(failures.into_iter().filter(|f| !unchanged(f, new, old)).map(told));
        }
        errors
    }

    fn refuse(&self, name: &str, errors: &[FieldError]) -> StatusError {
        StatusError::invalid_of(&self.group, &self.kind, name, errors)
    }
}

/// Whether a rule without a past failed on what did not change, which is tolerated.
fn unchanged(failure: &kube_cel::ValidationError, new: &Value, old: Option<&Value>) -> bool {
    let pointer = format!("/{}", failure.field_path.replace('[', "/").replace(']', "").replace('.', "/"));
    let pointer = if pointer == "/" { "" } else { &pointer };
    let held = |of: &Value| of.pointer(pointer).cloned();
    !failure.rule.contains("oldSelf") && old.is_some_and(|old| held(old).is_some() && held(old) == held(new))
}

fn told(failure: kube_cel::ValidationError) -> FieldError {
    let field = failure.field_path;
    match (failure.kind, failure.reason.as_deref()) {
        (ErrorKind::ValidationFailure, Some("FieldValueRequired")) => {
            FieldError::required(field, &failure.message)
        }
        (ErrorKind::ValidationFailure, Some("FieldValueForbidden")) => {
            FieldError::forbidden(field, &failure.message)
        }
        (ErrorKind::ValidationFailure, Some("FieldValueDuplicate")) => {
            FieldError::duplicate(field, failure.message)
        }
        (_, _) => FieldError::invalid(field, "object", &failure.message),
    }
}

impl ErasedStrategy for Rules {
    fn for_create(&self, object: Object, found: Vec<FieldError>) -> Result<Object, StatusError> {
        let name = object.name().to_owned();
        let value = self.shaped(object);
        let errors = [found, self.errors(&value, None)].concat();
        if !errors.is_empty() {
            return Err(self.refuse(&name, &errors));
        }
        Object::new(value).map_err(StatusError::internal)
    }

    fn for_update(
        &self,
        new: Object,
        old: &Object,
        _path: UpdatePath,
        found: Vec<FieldError>,
    ) -> Result<Object, StatusError> {
        let value = self.shaped(new);
        let before = self.shaped(old.clone());
        let errors = [found, self.errors(&value, Some(&before))].concat();
        if !errors.is_empty() {
            return Err(self.refuse(old.name(), &errors));
        }
        Object::new(value).map_err(StatusError::internal)
    }

    fn defaulted(&self, object: Object) -> Result<Object, StatusError> {
        Object::new(self.shaped(object)).map_err(StatusError::internal)
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        dns_subdomain(name)
    }

    fn field_names(&self) -> Vec<&'static str> {
        self.fields.iter().map(|(name, _)| *name).collect()
    }

    fn field_definitions(&self) -> Vec<FieldDefinition> {
        let define = |(name, _): &(&'static str, Path)| FieldDefinition {
            name: (*name).into(),
            default: String::new(),
            paths: vec![(*name).into()],
        };
        self.fields.iter().map(define).collect()
    }

    fn selectable_fields(&self, json: &[u8]) -> Vec<(&'static str, String)> {
        if self.fields.is_empty() {
            return Vec::new();
        }
        let object: Value = serde_json::from_slice(json).unwrap_or_default();
        let text = |path: &Path| match path.find(&object).first() {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        };
        self.fields.iter().map(|(name, path)| (*name, text(path))).collect()
    }

    fn columns(&self) -> &'static [Column] {
        self.columns.headings
    }

    fn row(&self, json: &[u8], now: Timestamp) -> Vec<Value> {
        self.columns.row(&serde_json::from_slice(json).unwrap_or_default(), now)
    }

    fn deletion_grace(&self, _object: &Object, _requested: Option<i64>) -> Option<i64> {
        None
    }
}
