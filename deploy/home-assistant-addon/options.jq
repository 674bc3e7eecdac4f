# The add-on's options as the bridge's configuration, in TOML. A JSON text without NUL is a TOML text.
# $files: the folder of the user's files; $service: what the Supervisor knows of a broker, or nothing;
# $password: the file of the broker's password, or "".

def set($key): if . == null or . == "" then empty else "\($key) = \(tojson)" end;
def file: if . == null or . == "" or startswith("/") then . else "\($files)/\(.)" end;
def given: . != null and . != "";
def twice: group_by(.)[] | select(length > 1) | first;

. as $options
| ($service[0] // {}) as $broker
| [.gateways[].name] as $names
| (
    if $names == [] then error("no gateway is configured: name one in the option gateways") else empty end,
    ($names | twice | error("two gateways are called \(.)")),
    (.devices | map("\(.device_id) of gateway \(.gateway)") | twice | error("device \(.) is listed twice")),
    (.devices[] | select(.gateway as $of | $names | index([$of]) | not)
      | error("device \(.device_id) is of gateway \(.gateway), which is not among the gateways"))
  ),
  "[mqtt]",
  (if .mqtt_url | given then .mqtt_url
    else "mqtt\(if $broker.ssl then "s" else "" end)://\($broker.host):\($broker.port)" end | set("url")),
  (if .mqtt_url | given then .mqtt_username else $broker.username end | set("username")),
  ($password | set("password_file")),
  (.mqtt_ca_file | file | set("ca_file")),
  "[http]",
  (if .status_page then "0.0.0.0" else "127.0.0.1" end
    | ("\(.):9926" | set("listen")), ("\(.):9925" | set("metrics_listen"))),
  # Ingress, which has checked the login; that is the Supervisor's address in every installation.
  (["127.0.0.0/8", "::1", "172.30.32.2"] | set("anonymous_from")),
  # Ingress passes on whatever name the browser has for Home Assistant.
  (["*"] | set("hosts")),
  "[commands]",
  (.commands | set("allow")),
  "[home_assistant]",
  (.home_assistant | set("enabled")),
  (.controls | set("controls")),
  (.gateways[] | . as $gateway |
    "[gateways.\(.name)]",
    (.address | set("address")),
    (.ca_file | file | set("ca_file")),
    (.server_name | set("server_name")),
    (.area | set("area")),
    ($options.devices[] | select(.gateway == $gateway.name) |
      "[gateways.\(.gateway).devices.\(.device_id)]",
      (to_entries[] | select(.key != "gateway" and .key != "device_id") | .key as $key | .value | set($key))))
