//! The types that apply and strategic merge walk along: which fields there are, and how what they hold is told apart.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock};

use serde_json::{Map, Value, json};

use crate::kinds::Kind;
use crate::schema::merging::{FieldFacts, ListType, Tag, facts};
use crate::schema::{Shape, types};

/// A name, of the program or of a custom resource's schema.
pub(crate) type Name = Cow<'static, str>;

/// What a value is made of.
#[derive(Clone, Debug, PartialEq)]
pub enum Type {
    /// Nothing is known: maps have fields, everything else is one value.
    Untyped,
    /// One value, whatever it is made of.
    Atomic,
    /// A map of known fields.
    Struct {
        /// The fields, in the order of their names.
        fields: Box<[(Name, Field)]>,
        /// Whether there may be others, of which nothing is known.
        open: bool,
    },
    /// A map of any keys.
    Map(usize),
    /// A list of scalars, each of which stands once.
    Set,
    /// A list of maps that are told apart by keys.
    Keyed {
        /// The keys, with the defaults of those that have one.
        keys: Vec<(Name, Option<Value>)>,
        /// The type of an element.
        of: usize,
    },
}

/// A field of a struct.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// Its type.
    of: usize,
    /// The type of itself, or of its elements, whatever the list type says.
    element: usize,
    /// How a strategic merge patch treats it.
    patch: Option<Tag>,
    /// Whether it stands even in an empty object.
    present: bool,
}

/// A field of a struct by its name.
fn find<'a>(fields: &'a [(Name, Field)], name: &str) -> Option<&'a Field> {
    fields.binary_search_by(|(own, _)| (**own).cmp(name)).ok().map(|at| &fields[at].1)
}

/// Types that refer to each other.
#[derive(Clone, Debug)]
pub struct Types(Vec<Type>);

const UNTYPED: usize = 0;
const ATOMIC: usize = 1;

impl Default for Types {
    fn default() -> Self {
        Self(vec![Type::Untyped, Type::Atomic])
    }
}

/// A type among others.
#[derive(Clone, Copy, Debug)]
pub struct TypeRef<'a> {
    types: &'a Types,
    at: usize,
}

/// A whole document's type.
#[derive(Clone, Debug)]
pub struct DocumentType {
    types: Arc<Types>,
    root: usize,
}

impl DocumentType {
    /// The type to walk along.
    pub fn root(&self) -> TypeRef<'_> {
        TypeRef { types: &self.types, at: self.root }
    }

    /// A document of which nothing is known but its metadata.
    pub fn untyped() -> Self {
        static TYPES: LazyLock<DocumentType> = LazyLock::new(|| custom(&json!({"type": "object"})));
        TYPES.clone()
    }

    /// The type of a kind of the table.
    pub fn of(kind: &Kind) -> Self {
        static BUILT_IN: LazyLock<(Arc<Types>, HashMap<&str, usize>)> = LazyLock::new(built_in);
        let (types, places) = &*BUILT_IN;
        let root = places.get(&*(kind.type_name)()).copied().unwrap_or(UNTYPED);
        Self { types: types.clone(), root }
    }

    /// The type of a custom resource by its structural schema (`openAPIV3Schema`).
    pub fn custom(schema: &Value) -> Self {
        custom(schema)
    }
}

impl TypeRef<'static> {
    /// A type of which nothing is known.
    pub fn untyped() -> Self {
        static TYPES: LazyLock<Types> = LazyLock::new(Types::default);
        Self { types: &TYPES, at: UNTYPED }
    }
}

impl<'a> TypeRef<'a> {
    /// What values of the type are made of.
    pub fn get(self) -> &'a Type {
        &self.types.0[self.at]
    }

    fn at(self, at: usize) -> Self {
        Self { at, ..self }
    }

    /// The type of a field of a map; atomic where there is none.
    pub fn field(self, name: &str) -> Self {
        match self.get() {
            Type::Untyped => self,
            Type::Struct { fields, open } => {
                self.at(find(fields, name).map_or(if *open { UNTYPED } else { ATOMIC }, |f| f.of))
            }
            Type::Map(of) => self.at(*of),
            _ => self.at(ATOMIC),
        }
    }

    /// Whether a map of the type may not have a field.
    pub fn forbids(self, field: &str) -> bool {
        matches!(self.get(), Type::Struct { fields, open: false } if find(fields, field).is_none())
    }

    /// Whether a field is one that the type names.
    pub fn names(self, field: &str) -> bool {
        matches!(self.get(), Type::Struct { fields, .. } if find(fields, field).is_some())
    }

    /// The type of an element of a list.
    pub fn element(self) -> Self {
        match self.get() {
            Type::Keyed { of, .. } => self.at(*of),
            Type::Untyped => self,
            _ => self.at(ATOMIC),
        }
    }

    /// How a strategic merge patch treats a field, and the type of the field or of its elements.
    pub fn patch(self, name: &str) -> (Option<Tag>, Self) {
        match self.get() {
            Type::Struct { fields, .. } => {
                find(fields, name).map_or((None, self.at(UNTYPED)), |f| (f.patch, self.at(f.element)))
            }
            Type::Map(of) => (None, self.at(*of)),
            _ => (None, self.at(UNTYPED)),
        }
    }

    /// What stands even in an empty object of the type.
    pub fn empty(self) -> Value {
        let Type::Struct { fields, .. } = self.get() else { return Value::Null };
        let present = fields.iter().filter(|(_, field)| field.present);
        let present = present.map(|(name, field)| {
            let of = self.at(field.element);
            let value =
                if matches!(self.at(field.of).get(), Type::Struct { .. }) { of.empty() } else { Value::Null };
            (name.to_string(), value)
        });
        Value::Object(present.collect::<Map<_, _>>())
    }
}

/// All types of the table, which the kinds share, and where they are.
fn built_in() -> (Arc<Types>, HashMap<&'static str, usize>) {
    let mut all = Types::default();
    let first = all.0.len();
    let places: HashMap<&str, usize> = types().zip(first..).map(|((name, _), at)| (name, at)).collect();
    all.0.resize(first + places.len(), Type::Untyped);
    for (name, fields) in types() {
        let own = facts(name);
        let fields = fields.into_iter().map(|(field, shape)| {
            let known = own.and_then(|f| f.field(field));
            let present = field == "metadata" || known.is_some_and(|f| f.present);
            let (of, element) = place(&mut all, &places, &shape, known);
            let patch = known.and_then(|f| f.patch);
            (Cow::Borrowed(field), Field { of, element, patch, present })
        });
        let fields: BTreeMap<Name, Field> = fields.collect();
        all.0[places[name]] = Type::Struct { fields: fields.into_iter().collect(), open: false };
    }
    all.0.shrink_to_fit();
    (Arc::new(all), places)
}

/// The place of a field's type, and of its own or its elements' for patches.
fn place(
    types: &mut Types,
    places: &HashMap<&str, usize>,
    shape: &Shape,
    known: Option<&FieldFacts>,
) -> (usize, usize) {
    let list = known.and_then(|f| f.list.as_ref());
    match shape {
        Shape::Any => (UNTYPED, UNTYPED),
        Shape::Reference(name) => {
            let own = places.get(name.as_str()).copied().unwrap_or(UNTYPED);
            let atomic = list == Some(&ListType::Atomic) || facts(name).is_some_and(|f| f.atomic);
            (if atomic { ATOMIC } else { own }, own)
        }
        Shape::Map(of) => {
            let (of, element) = place(types, places, of, None);
            if list == Some(&ListType::Atomic) {
                return (ATOMIC, element);
            }
            let own = push(types, Type::Map(of));
            (own, own)
        }
        Shape::List(of) => {
            let (_, element) = place(types, places, of, None);
            match list {
                Some(ListType::Set) => (push(types, Type::Set), element),
                Some(ListType::Map(keys)) => {
                    let owner = if let Shape::Reference(name) = &**of { facts(name) } else { None };
                    let default = |key: &str| owner?.field(key)?.default.map(Value::from);
                    let keys = keys.iter().map(|key| (Cow::Borrowed(*key), default(key))).collect();
                    (push(types, Type::Keyed { keys, of: element }), element)
                }
                Some(ListType::Atomic) | None => (ATOMIC, element),
            }
        }
        _ => (ATOMIC, ATOMIC),
    }
}

fn push(types: &mut Types, of: Type) -> usize {
    types.0.push(of);
    types.0.len() - 1
}

/// The metadata of every object.
fn metadata(types: &mut Types) -> usize {
    let strings = push(types, Type::Map(ATOMIC));
    let field = |of| Field { of, element: of, patch: None, present: false };
    let atoms = [
        "name",
        "generateName",
        "namespace",
        "selfLink",
        "uid",
        "resourceVersion",
        "generation",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "managedFields",
    ];
    let mut fields: BTreeMap<Name, Field> = atoms.map(|name| (Cow::Borrowed(name), field(ATOMIC))).into();
    fields.insert("labels".into(), field(strings));
    fields.insert("annotations".into(), field(strings));
    let finalizers = push(types, Type::Set);
    fields.insert("finalizers".into(), field(finalizers));
    let owners = push(types, Type::Keyed { keys: vec![("uid".into(), None)], of: UNTYPED });
    fields.insert("ownerReferences".into(), field(owners));
    push(types, Type::Struct { fields: fields.into_iter().collect(), open: false })
}

fn custom(schema: &Value) -> DocumentType {
    let mut types = Types::default();
    let metadata = metadata(&mut types);
    let root = structural(&mut types, schema, Some(metadata));
    DocumentType { types: Arc::new(types), root }
}

/// The type of a structural schema. `metadata` is given where the schema is that of a whole object.
fn structural(types: &mut Types, schema: &Value, metadata: Option<usize>) -> usize {
    let flag = |name: &str| schema.get(name).and_then(Value::as_bool).unwrap_or(false);
    let text = |name: &str| schema.get(name).and_then(Value::as_str).unwrap_or_default();
    let properties = schema.get("properties").and_then(Value::as_object);
    if text("x-kubernetes-map-type") == "atomic" {
        return ATOMIC;
    }
    match text("type") {
        "array" => list(types, schema),
        "object" | "" if properties.is_some() || metadata.is_some() => {
            let mut fields: BTreeMap<Name, Field> = BTreeMap::new();
            for (name, of) in properties.into_iter().flatten() {
                let embedded =
                    of.get("x-kubernetes-embedded-resource").and_then(Value::as_bool) == Some(true);
                let own = embedded.then(|| self::metadata(types));
                let of = structural(types, of, own);
                fields.insert(name.clone().into(), Field { of, element: of, patch: None, present: false });
            }
            if let Some(metadata) = metadata {
                for (name, of) in [("apiVersion", ATOMIC), ("kind", ATOMIC), ("metadata", metadata)] {
                    let present = name == "metadata";
                    fields.insert(name.into(), Field { of, element: of, patch: None, present });
                }
            }
            let open = flag("x-kubernetes-preserve-unknown-fields") || properties.is_none();
            if open && metadata.is_none() && fields.is_empty() {
                return UNTYPED;
            }
            push(types, Type::Struct { fields: fields.into_iter().collect(), open })
        }
        "object" => match schema.get("additionalProperties") {
            Some(of @ Value::Object(_)) => {
                let of = structural(types, of, None);
                push(types, Type::Map(of))
            }
            _ => UNTYPED,
        },
        "" if flag("x-kubernetes-preserve-unknown-fields") => UNTYPED,
        _ => ATOMIC,
    }
}

fn list(types: &mut Types, schema: &Value) -> usize {
    let items = schema.get("items").cloned().unwrap_or_default();
    match schema.get("x-kubernetes-list-type").and_then(Value::as_str) {
        Some("set") => push(types, Type::Set),
        Some("map") => {
            let keys = schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
            let default = |key: &str| items.pointer(&format!("/properties/{key}/default")).cloned();
            let keys = keys.into_iter().flatten().filter_map(Value::as_str);
            let keys = keys.map(|key| (Cow::Owned(key.to_owned()), default(key))).collect();
            let of = structural(types, &items, None);
            push(types, Type::Keyed { keys, of })
        }
        _ => ATOMIC,
    }
}
