package main

// The files of the demo, as a user would write them.
const (
	primaryRegistryYAML = `version: 0.1
log: {level: warn}
storage:
  filesystem: {rootdirectory: primary-registry}
  delete: {enabled: true}
http: {addr: "%s", secret: only-for-the-demo}
notifications:
  endpoints:
    - name: antipode
      url: http://%s/notifications
      headers:
        Authorization: ["Bearer %s"]
      timeout: 5s
      threshold: 10
      backoff: 1s
      ignore:
        actions: [pull]
        mediatypes: [application/octet-stream]
`
	siteRegistryYAML = `version: 0.1
log: {level: warn}
storage:
  filesystem: {rootdirectory: site-registry}
  delete: {enabled: true}
http: {addr: "%s", secret: only-for-the-demo}
`
	primaryYAML = `database: sqlite:primary.db
registry: {url: "http://%s"}
notifications: {secret_file: notify.secret}
http: {listen: "%s"}
grpc: {listen: "%s", cert_file: pki/primary.crt, key_file: pki/primary.key, client_ca_file: pki/ca.crt}
nodes: [{name: eu-west, repositories: ["**"]}]
operators: [ops]
`
	secondaryYAML = `node: eu-west
database: sqlite:secondary.db
primary: {address: "%s", cert_file: pki/eu-west.crt, key_file: pki/eu-west.key, ca_file: pki/ca.crt}
registry: {url: "http://%s"}
http: {listen: "%s"}
grpc: {listen: "%s", cert_file: pki/eu-west.crt, key_file: pki/eu-west.key, client_ca_file: pki/ca.crt}
`
	lookText = `
Where to look, until you press Ctrl-C:
  status page       http://%s/
  metrics           http://%s/metrics and http://%s/metrics
  nodes             (cd .demo && ../bin/primaryd nodes)
  the site          (cd .demo && ../bin/secondaryd status)
  one repository    (cd .demo && ../bin/secondaryd explain demo/app)
  by grpcurl        .tools/bin/grpcurl -cacert .demo/pki/ca.crt -cert .demo/pki/ops.crt -key .demo/pki/ops.key \
                      %s antipode.v1.NodeService/ListNodes
  push your own     docker tag busybox %s/busybox && docker push %s/busybox
  pull at the site  docker pull %s/busybox
`
)
