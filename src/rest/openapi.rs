//! What a tenant's tables look like to a program: an OpenAPI 2.0 document, as PostgREST serves it.

use serde_json::{Map, Value, json};

use super::access::{self, Caller, Command};
use super::function::{Function, Functions, Parameter};
use super::schema::{Column, Schema, Shape, Table};
use super::statement::Binder;
use super::value::Kind;

/// Of the tables that the caller may see, and the functions that it may call.
pub fn document(schema: &Schema, functions: &Functions, caller: &Caller) -> Vec<u8> {
    let seen = |table: &&Table| access::using(caller, table, Command::Select, "t", &mut Binder::default()).is_ok();
    let (mut definitions, mut paths) = (Map::new(), Map::new());
    for table in schema.tables().filter(seen) {
        definitions.insert(table.name.clone(), definition(schema, table));
        paths.insert(format!("/{}", table.name), operations(table));
    }
    for function in functions.of(caller) {
        paths.insert(format!("/rpc/{}", function.name), calls(function));
    }
    let document = json!({
        "swagger": "2.0",
        "info": { "title": "Rows of this tenant", "version": env!("CARGO_PKG_VERSION") },
        "basePath": "/rest/v1",
        "consumes": ["application/json", "text/csv", "application/x-www-form-urlencoded"],
        "produces": ["application/json", "application/vnd.pgrst.object+json", "text/csv"],
        "paths": paths,
        "definitions": definitions,
    });
    document.to_string().into_bytes()
}

fn definition(schema: &Schema, table: &Table) -> Value {
    let properties: Map<String, Value> = {
        let columns = table.columns.iter().enumerate().filter(|(_, column)| column.rights.has(Command::Select));
        columns.map(|(at, column)| (column.name.clone(), property(schema, table, at, column))).collect()
    };
    let required: Vec<_> =
        table.readable().filter(|column| column.not_null && column.default.is_none()).map(|column| &column.name).collect();
    json!({ "type": "object", "properties": properties, "required": required })
}

fn property(schema: &Schema, table: &Table, at: usize, column: &Column) -> Value {
    let mut property = form(column.kind);
    let mut notes = Vec::new();
    if table.key.contains(&at) {
        notes.push("This is a Primary Key.<pk/>".to_owned());
    }
    for key in table.foreign_keys.iter().filter(|key| key.columns == [at] && schema.table(key.to).shape != Shape::View) {
        let to = schema.table(key.to);
        let column = &to.columns[key.to_columns[0]].name;
        notes.push(format!("This is a Foreign Key to `{0}.{column}`.<fk table='{0}' column='{column}'/>", to.name));
    }
    if !notes.is_empty() {
        property["description"] = json!(format!("Note:\n{}", notes.join("\n")));
    }
    if property.get("format").is_none() && !column.declared.is_empty() {
        property["format"] = json!(column.declared.to_lowercase());
    }
    property
}

fn form(kind: Kind) -> Value {
    match kind {
        Kind::Integer => json!({ "type": "integer" }),
        Kind::Number => json!({ "type": "number" }),
        Kind::Boolean => json!({ "type": "boolean" }),
        Kind::Text => json!({ "type": "string" }),
        Kind::Blob => json!({ "type": "string", "format": "byte" }),
        Kind::Json | Kind::Any => json!({}),
    }
}

fn calls(function: &Function) -> Value {
    let tag = format!("(rpc) {}", function.name);
    let required = |parameter: &&Parameter| parameter.default.is_none();
    let properties: Map<String, Value> =
        function.parameters.iter().map(|parameter| (parameter.name.clone(), form(parameter.kind))).collect();
    let required: Vec<_> = function.parameters.iter().filter(required).map(|parameter| &parameter.name).collect();
    let arguments = json!({ "type": "object", "properties": properties, "required": required });
    let answers = json!({ "200": { "description": "OK" }, "204": { "description": "No Content" } });
    let body = json!([{ "name": "args", "in": "body", "required": true, "schema": arguments }]);
    let mut calls = json!({ "post": { "tags": [tag], "parameters": body, "responses": answers } });
    if !function.is_volatile {
        let parameters = function.parameters.iter().map(|parameter| {
            let mut one = form(parameter.kind);
            // A parameter of a query has a type.
            one["type"] = one["type"].as_str().unwrap_or("string").into();
            one["name"] = parameter.name.clone().into();
            one["in"] = "query".into();
            one["required"] = parameter.default.is_none().into();
            one
        });
        calls["get"] = json!({ "tags": [tag], "parameters": parameters.collect::<Vec<_>>(), "responses": answers });
    }
    calls
}

fn operations(table: &Table) -> Value {
    let name = &table.name;
    let body = json!([{ "name": name, "in": "body", "schema": { "$ref": format!("#/definitions/{name}") } }]);
    let rows = json!({ "type": "array", "items": { "$ref": format!("#/definitions/{name}") } });
    let filters: Vec<Value> = table.readable().map(|column| json!({ "name": column.name, "in": "query", "type": "string" })).collect();
    let mut operations = json!({ "get": {
        "tags": [name], "parameters": filters, "responses": { "200": { "description": "OK", "schema": rows }, "206": { "description": "Partial Content" } }
    } });
    if table.shape != Shape::View {
        operations["post"] = json!({ "tags": [name], "parameters": body, "responses": { "201": { "description": "Created" } } });
        operations["patch"] = json!({ "tags": [name], "parameters": body, "responses": { "204": { "description": "No Content" } } });
        operations["delete"] = json!({ "tags": [name], "parameters": filters, "responses": { "204": { "description": "No Content" } } });
    }
    operations
}
