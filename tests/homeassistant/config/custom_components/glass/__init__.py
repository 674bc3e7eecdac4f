"""Lets the tests see what Home Assistant sees, and press what a user would press.

Without a login, so only for a Home Assistant that lives on the loopback as long as a test.
"""

from homeassistant.components.http import HomeAssistantView
from homeassistant.helpers import area_registry, device_registry, entity_registry


class Glass(HomeAssistantView):
    """GET: MQTT's entities and devices, when automations and scripts ran, what was notified.
    POST: calls a service."""

    url = "/glass"
    name = "glass"
    requires_auth = False

    def __init__(self, hass):
        self.hass = hass

    async def get(self, _request):
        """Entities by unique ID, devices by identifier."""
        devices = device_registry.async_get(self.hass).devices
        areas = area_registry.async_get(self.hass)
        ids = {key: self._identifier(device) for key, device in devices.items()}
        entities = {
            entry.unique_id: self._entity(entry, ids)
            for entry in entity_registry.async_get(self.hass).entities.values()
            if entry.platform == "mqtt"
        }
        shown = {
            ids[key]: self._device(device, ids, areas) for key, device in devices.items() if ids[key]
        }
        ran = {
            state.entity_id: state.attributes["last_triggered"]
            for state in self.hass.states.async_all(("automation", "script"))
        }
        notified = self.hass.data.get("persistent_notification", {}).values()
        return self.json({
            "entities": entities,
            "devices": shown,
            "automations": ran,
            "notified": {one["title"]: one["message"] for one in notified},
        })

    async def post(self, request):
        """Calls a service and waits for it."""
        call = await request.json()
        await self.hass.services.async_call(
            call["domain"], call["service"], call["data"], blocking=True
        )
        return self.json({})

    @staticmethod
    def _identifier(device):
        return next((name for domain, name in device.identifiers if domain == "mqtt"), None)

    def _entity(self, entry, ids):
        state = self.hass.states.get(entry.entity_id)
        return {
            "entity_id": entry.entity_id,
            "device": ids.get(entry.device_id),
            "category": entry.entity_category and entry.entity_category.value,
            "disabled": entry.disabled_by is not None,
            "state": state and state.state,
            "attributes": dict(state.attributes) if state else {},
        }

    @staticmethod
    def _device(device, ids, areas):
        area = device.area_id and areas.async_get_area(device.area_id)
        return {
            "name": device.name,
            "model": device.model,
            "manufacturer": device.manufacturer,
            "serial_number": device.serial_number,
            "area": area.name if area else None,
            "via": ids.get(device.via_device_id),
        }


async def async_setup(hass, _config):
    """Opens the glass."""
    hass.http.register_view(Glass(hass))
    return True
