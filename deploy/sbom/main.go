// Command sbom writes what programs are made of, as CycloneDX in JSON: the modules that the linker put into each, with
// their versions and sums, and the Go release, read off the program itself. It knows nothing of the system around it, and
// asks nobody.
//
//	go run ./deploy/sbom PROGRAM...
//
// writes PROGRAM.cdx.json beside each.
package main

import (
	"debug/buildinfo"
	"errors"
	"fmt"
	"os"
	"path"
	"runtime/debug"
	"strings"

	cyclonedx "github.com/CycloneDX/cyclonedx-go"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "sbom:", err)
		os.Exit(1)
	}
}

func run(programs []string) error {
	if len(programs) == 0 {
		return errors.New("name the programs")
	}
	for _, program := range programs {
		if err := describe(program); err != nil {
			return err
		}
	}
	return nil
}

// describe writes the description of one program beside it.
func describe(program string) (err error) {
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		return fmt.Errorf("%s: %w", program, err)
	}
	file, err := os.Create(program + ".cdx.json")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	encoder := cyclonedx.NewBOMEncoder(file, cyclonedx.BOMFileFormatJSON)
	return encoder.SetPretty(true).Encode(document(info))
}

// document has no serial number and no time: the same program has the same description.
func document(info *debug.BuildInfo) *cyclonedx.BOM {
	main := component(&info.Main)
	main.Type, main.Name = cyclonedx.ComponentTypeApplication, path.Base(info.Path)
	release := strings.TrimPrefix(info.GoVersion, "go")
	parts := []cyclonedx.Component{{
		BOMRef: "pkg:golang/std@" + release, Type: cyclonedx.ComponentTypeLibrary, Name: "std", Version: release,
		PackageURL: "pkg:golang/std@" + release,
	}}
	for _, module := range info.Deps {
		if module.Replace != nil {
			module = module.Replace
		}
		parts = append(parts, component(module))
	}
	var uses []string
	for _, part := range parts {
		uses = append(uses, part.BOMRef)
	}
	bom := cyclonedx.NewBOM()
	bom.Metadata = &cyclonedx.Metadata{Component: &main}
	bom.Components = &parts
	bom.Dependencies = &[]cyclonedx.Dependency{{Ref: main.BOMRef, Dependencies: &uses}}
	return bom
}

// component is one module. Its sum is that of go.sum, which is none of the hashes that the format knows.
func component(module *debug.Module) cyclonedx.Component {
	address := "pkg:golang/" + module.Path + "@" + module.Version
	c := cyclonedx.Component{
		BOMRef: address, Type: cyclonedx.ComponentTypeLibrary, Name: module.Path, Version: module.Version, PackageURL: address,
	}
	if module.Sum != "" {
		c.Properties = &[]cyclonedx.Property{{Name: "go:sum", Value: module.Sum}}
	}
	return c
}
