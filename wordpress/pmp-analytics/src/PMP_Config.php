<?php

declare(strict_types=1);

/**
 * Settings of the plugin: constants of wp-config.php first, then the option.
 */
class PMP_Config
{
    public const OPTION = 'pmp_analytics';

    private const DEFAULTS = [
        'gateway_url' => '',
        'api_key' => '',
        'jwt_secret' => '',
        'excluded_roles' => ['administrator', 'editor', 'shop_manager'],
        'erasure_secret' => '',
        'erases_with_the_mesh' => false,
        'consent' => 'required',
        'max_waiting' => 100_000,
    ];

    private const CONSTANTS = [
        'gateway_url' => 'PMP_ANALYTICS_GATEWAY_URL',
        'api_key' => 'PMP_ANALYTICS_API_KEY',
        'jwt_secret' => 'PMP_ANALYTICS_JWT_SECRET',
        'erasure_secret' => 'PMP_ANALYTICS_ERASURE_SECRET',
    ];

    /**
     * Address of the mesh's gateway, without a trailing slash; empty if not configured.
     */
    public function gateway_url(): string
    {
        return untrailingslashit($this->text('gateway_url'));
    }

    /**
     * Identifies this shop to the gateway.
     */
    public function api_key(): string
    {
        return $this->text('api_key');
    }

    /**
     * Shared with the gateway; signs the tokens.
     */
    public function jwt_secret(): string
    {
        return $this->text('jwt_secret');
    }

    /**
     * Shared with the mesh, which signs its calls with it: `whsec_` and base64; if empty, its calls are refused.
     */
    public function erasure_secret(): string
    {
        return $this->text('erasure_secret');
    }

    /**
     * Whether an erasure by the mesh also runs the erasers of WordPress and its plugins.
     */
    public function erases_with_the_mesh(): bool
    {
        return (bool) $this->value('erases_with_the_mesh');
    }

    /**
     * True when messages can be delivered.
     */
    public function is_complete(): bool
    {
        return $this->is_safe_address() && $this->api_key() !== '' && $this->jwt_secret() !== '';
    }

    /**
     * Personal data and keys are sent over TLS, or stay on this machine or in its private network.
     */
    public function is_safe_address(): bool
    {
        return self::is_safe($this->gateway_url());
    }

    /**
     * Whether an address is of TLS, or of this machine or its private network.
     */
    public static function is_safe(string $url): bool
    {
        $address = wp_parse_url($url);
        $scheme = $address['scheme'] ?? '';
        $host = trim($address['host'] ?? '', '[]');
        if ($host === '' || ! in_array($scheme, ['http', 'https'], true)) {
            return false;
        }
        if ($scheme === 'https' || ! str_contains($host, '.') && ! str_contains($host, ':')) {
            return true;
        }
        $public = FILTER_FLAG_NO_PRIV_RANGE | FILTER_FLAG_NO_RES_RANGE;
        return filter_var($host, FILTER_VALIDATE_IP) !== false && filter_var($host, FILTER_VALIDATE_IP, $public) === false;
    }

    /**
     * Roles of the shop's staff, whose actions are not recorded.
     *
     * @return list<string>
     */
    public function excluded_roles(): array
    {
        return array_values(array_map('strval', (array) $this->value('excluded_roles')));
    }

    public function is_staff(int $user_id): bool
    {
        $user = $user_id > 0 ? get_userdata($user_id) : false;
        return $user instanceof WP_User && array_intersect($user->roles, $this->excluded_roles()) !== [];
    }

    /**
     * True if visitors are recorded only after they have agreed; false if until they object.
     */
    public function requires_consent(): bool
    {
        return $this->value('consent') !== 'assumed';
    }

    /**
     * Maximum of waiting messages. Above it events are refused; orders and users are accepted up to twice as many.
     */
    public function max_waiting(): int
    {
        return max(1, (int) $this->value('max_waiting'));
    }

    /**
     * True if the setting is a constant in wp-config.php, so that the settings page can't change it.
     */
    public function is_fixed(string $name): bool
    {
        return isset(self::CONSTANTS[$name]) && defined(self::CONSTANTS[$name]);
    }

    /**
     * Name of the constant of wp-config.php that fixes a setting.
     */
    public function constant(string $name): string
    {
        return self::CONSTANTS[$name];
    }

    private function text(string $name): string
    {
        return trim((string) ($this->is_fixed($name) ? constant(self::CONSTANTS[$name]) : $this->value($name)));
    }

    private function value(string $name): mixed
    {
        return ((array) get_option(self::OPTION, []))[$name] ?? self::DEFAULTS[$name];
    }
}
