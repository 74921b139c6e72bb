package reference

import (
	"encoding"
	"fmt"
	"reflect"
	"strings"
	"time"
)

// Key is a key of a configuration file.
type Key struct {
	Path    string // such as nodes[].name
	Default string // as the file would have it; "" for none
}

// Keys walks the yaml tags of a settings struct, whose values are the defaults.
func Keys(settings any) ([]Key, error) {
	return keys("", reflect.Indirect(reflect.ValueOf(settings)))
}

func keys(prefix string, settings reflect.Value) ([]Key, error) {
	var list []Key
	for i := range settings.NumField() {
		field := settings.Type().Field(i)
		name, _, _ := strings.Cut(field.Tag.Get("yaml"), ",")
		if name == "" || name == "-" {
			return nil, fmt.Errorf("reference: field %s of %s has no yaml tag", field.Name, settings.Type())
		}
		below, err := key(prefix+name, settings.Field(i))
		if err != nil {
			return nil, err
		}
		list = append(list, below...)
	}
	return list, nil
}

// key returns the key of one value with those below it. A struct is no key by itself: its keys are.
func key(path string, value reflect.Value) ([]Key, error) {
	_, isText := reflect.TypeAssert[encoding.TextMarshaler](value)
	switch {
	case isText:
	case value.Kind() == reflect.Struct:
		return keys(path+".", value)
	case value.Kind() == reflect.Slice && value.Type().Elem().Kind() == reflect.Struct:
		below, err := keys(path+"[].", reflect.Zero(value.Type().Elem()))
		return append([]Key{{Path: path, Default: "[]"}}, below...), err
	}
	text, err := written(value)
	if err != nil {
		return nil, fmt.Errorf("reference: key %s: %w", path, err)
	}
	return []Key{{Path: path, Default: text}}, nil
}

// written is a value as the file would have it.
func written(value reflect.Value) (string, error) {
	if text, ok := reflect.TypeAssert[encoding.TextMarshaler](value); ok {
		content, err := text.MarshalText()
		return string(content), err
	}
	switch value.Kind() {
	case reflect.String, reflect.Bool, reflect.Int, reflect.Int64, reflect.Float64:
		return fmt.Sprint(value.Interface()), nil
	case reflect.Slice:
		items := make([]string, value.Len())
		for i := range items {
			items[i] = fmt.Sprintf("%q", fmt.Sprint(value.Index(i).Interface()))
		}
		return "[" + strings.Join(items, ", ") + "]", nil
	default:
		return "", fmt.Errorf("a %s cannot be written down: teach this package", value.Type())
	}
}

// CheckKeys compares the keys with the rows of a reference, whose columns Key and Default it reads. A key without a
// default has a word in that column, such as "required", and no code span.
func CheckKeys(document string, rows []Row, keys []Key) []string {
	stated := make(map[string]string, len(rows))
	documented := make([]string, len(rows))
	for i, row := range rows {
		documented[i] = Code(row.Cells["Key"])
		stated[documented[i]] = row.Cells["Default"]
	}
	paths := make([]string, len(keys))
	for i, key := range keys {
		paths[i] = key.Path
	}
	problems := Differences(document, documented, paths)
	for _, key := range keys {
		cell, ok := stated[key.Path]
		if ok && !sameDefault(cell, key.Default) {
			problems = append(problems, fmt.Sprintf("%s says the default of %s is %s, the code has %q",
				document, key.Path, cell, key.Default))
		}
	}
	return problems
}

func sameDefault(cell, value string) bool {
	text := Code(cell)
	if value == "" {
		return text == cell && cell != ""
	}
	if text == value {
		return text != cell
	}
	a, aErr := time.ParseDuration(text)
	b, bErr := time.ParseDuration(value)
	return aErr == nil && bErr == nil && a == b
}
