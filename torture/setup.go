package main

import (
	"context"
	"fmt"
	"maps"
	"net/url"
	"os/exec"
	"path/filepath"

	"github.com/jackc/pgx/v5"

	"github.com/antipode-registry/antipode/internal/database/databasetest"
)

// The registries' processes.
const (
	primaryRegistry = "primary-registry"
	siteRegistry    = "site-registry"
)

// The disks of the registries and of the databases.
const (
	primaryStorage = "primary-storage"
	siteStorage    = "site-storage"
	primaryData    = "primary-data"
	siteData       = "site-data"
)

// registries configures both registries as Antipode recommends it.
func (w *world) registries() error {
	for name, storage := range map[string]string{primaryRegistry: primaryStorage, siteRegistry: siteStorage} {
		config := map[string]any{
			"version": "0.1",
			"log":     map[string]any{"level": "error", "accesslog": map[string]any{"disabled": true}},
			"storage": map[string]any{
				"filesystem": map[string]any{"rootdirectory": filepath.Join(w.path(storage), "registry")},
				"delete":     map[string]any{"enabled": true},
			},
			// Behind the links it must not tell clients its own address.
			"http": map[string]any{"addr": w.address(name), "secret": "torture", "relativeurls": true},
		}
		if name == primaryRegistry {
			config["notifications"] = map[string]any{"endpoints": []any{map[string]any{
				"name": "antipode", "url": w.url(notifyLink) + "/notifications",
				"headers": map[string]any{"Authorization": []string{"Bearer " + secret}},
				"timeout": "1s", "threshold": 3, "backoff": "200ms",
				"ignoredmediatypes": []string{"application/octet-stream"},
				"ignore":            map[string]any{"actions": []string{"pull"}},
			}}}
		}
		path, err := w.configure(name, config)
		if err != nil {
			return err
		}
		program := w.cast().primary
		if name == siteRegistry {
			program = w.cast().site
		}
		argv, err := w.command(program, w.address(name), path)
		if err != nil {
			return fmt.Errorf("the program of the %s: %w", name, err)
		}
		w.add(name, answers(w.url(name)+"/v2/"), argv...)
	}
	return nil
}

// daemons configures primaryd and secondaryd. Sweeps come often, as the run is short; no brake is on, so that nothing
// but the daemons' own care keeps what is there.
func (w *world) daemons() error {
	for i, name := range w.named("primaryd") {
		config := map[string]any{
			"database":      w.databaseURL("primary"),
			"registry":      map[string]any{"url": w.url(readLink), "advertise_url": w.url(sourceLink)},
			"notifications": map[string]any{"secret_file": "notify.secret"},
			"http":          map[string]any{"listen": w.address(name + " http")},
			"grpc":          w.services(primaryName, name, map[string]any{"heartbeat": "1s"}),
			"nodes":         []any{map[string]any{"name": siteName, "repositories": []string{"**"}}},
			"operators":     []string{operatorName},
			"sweep":         map[string]any{"interval": fmt.Sprintf("%ds", 3+i)},
			"log":           map[string]any{"level": "debug"},
		}
		if err := w.daemon(name, "primaryd", config); err != nil {
			return err
		}
	}
	for i, name := range w.named("secondaryd") {
		config := map[string]any{
			"node":     siteName,
			"database": w.databaseURL("site"),
			"primary": map[string]any{
				"address": w.address(followLink), "cert_file": "pki/" + siteName + ".crt",
				"key_file": "pki/" + siteName + ".key", "ca_file": "pki/ca.crt",
			},
			"registry":  map[string]any{"url": w.url(replicaLink)},
			"deletions": map[string]any{"brake": map[string]any{"share": 1, "site_share": 1}},
			"http":      map[string]any{"listen": w.address(name + " http")},
			"grpc":      w.services(siteName, name, nil),
			"sweep":     map[string]any{"interval": fmt.Sprintf("%ds", 5+i)},
			"log":       map[string]any{"level": "debug"},
		}
		if err := w.daemon(name, "secondaryd", config); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) daemon(name, program string, config map[string]any) error {
	path, err := w.configure(name, config)
	if err != nil {
		return err
	}
	w.add(name, answers(w.url(name+" http")+"/readyz"), filepath.Join(w.Programs, program), "serve", "--config", path)
	return nil
}

func (w *world) services(certificate, name string, more map[string]any) map[string]any {
	config := map[string]any{
		"listen": w.address(name + " grpc"), "cert_file": "pki/" + certificate + ".crt",
		"key_file": "pki/" + certificate + ".key", "client_ca_file": "pki/ca.crt",
	}
	maps.Copy(config, more)
	return config
}

// databaseURL is the database of a side.
func (w *world) databaseURL(side string) string {
	if w.Database == "sqlite" {
		return "sqlite:" + filepath.Join(w.path(side+"-data"), side+".db")
	}
	query := url.Values{"host": {w.path(side + "-data")}, "user": {"antipode"}, "sslmode": {"disable"}}
	return (&url.URL{Scheme: "postgres", Path: "/postgres", RawQuery: query.Encode()}).String()
}

// databases makes a Postgres server for each side; for SQLite there is nothing to do.
func (w *world) databases() error {
	if w.Database == "sqlite" {
		return nil
	}
	bin, err := databasetest.FindPostgres()
	if err != nil {
		return err
	}
	for _, side := range []string{"primary", "site"} {
		if err := w.postgres(bin, side); err != nil {
			return err
		}
	}
	return nil
}

// postgres makes a server that keeps what it has confirmed when it is killed; that it also survives the machine's power
// being cut is not asked of it, which makes it faster.
func (w *world) postgres(bin, side string) error {
	dir := w.path(side + "-data")
	prefix, err := databasetest.Unprivileged(dir)
	if err != nil {
		return err
	}
	data := filepath.Join(dir, "data")
	args := append(prefix, filepath.Join(bin, "initdb"), "--pgdata", data, "--username=antipode", "--auth=trust",
		"--no-sync", "--locale=C", "--encoding=UTF8", "--no-instructions")
	cmd := exec.Command(args[0], args[1:]...) //nolint:noctx // takes a second
	cmd.Dir = dir
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, output)
	}
	if len(prefix) > 0 { // a change of user forgets the death signal
		prefix = append([]string{prefix[0], "--pdeathsig", "KILL"}, prefix[1:]...)
	}
	address := w.databaseURL(side)
	ready := func(ctx context.Context) error {
		conn, err := pgx.Connect(ctx, address)
		if err != nil {
			return err
		}
		return conn.Close(ctx)
	}
	w.add(side+"-postgres", ready, append(prefix, filepath.Join(bin, "postgres"), "-D", data, "-k", dir,
		"-c", "listen_addresses=", "-c", "fsync=off", "-c", "full_page_writes=off", "-c", "shared_buffers=32MB",
		"-c", "max_connections=100", "-c", "max_wal_size=64MB", "-c", "min_wal_size=32MB",
		"-c", "restore_command=false")...) // a recovery finds no more than what is in its folder
	return nil
}
