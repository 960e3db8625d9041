<?php

declare(strict_types=1);

namespace PMP\Analytics\Admin;

use PMP\Analytics\Capture\Backfill;
use PMP\Analytics\Delivery\Pause;
use PMP\Analytics\Hook;
use PMP\Analytics\Registerable;
use PMP_Config;
use PMP_Event_Queue;

/**
 * Settings > PMP Analytics: the connection to the mesh, what is recorded, and the state of the outbox.
 */
final class SettingsPage implements Registerable
{
    public const SLUG = 'pmp-analytics';

    public const CAPABILITY = 'manage_options';

    private const ACTION = 'pmp_analytics_act';

    public function __construct(
        private readonly PMP_Config $config,
        private readonly PMP_Event_Queue $queue,
        private readonly Pause $pause,
        private readonly Backfill $backfill,
        private readonly ConnectionBox $connection,
    ) {
    }

    public function register(): void
    {
        Hook::action('init', [$this, 'load_translations']);
        Hook::action('admin_menu', [$this, 'add_page']);
        Hook::action('admin_init', [$this, 'add_settings']);
        Hook::action('admin_post_' . self::ACTION, [$this, 'act']);
    }

    public static function address(): string
    {
        return admin_url('options-general.php?page=' . self::SLUG);
    }

    public function load_translations(): void
    {
        load_plugin_textdomain('pmp-analytics', false, dirname(plugin_basename(PMP_ANALYTICS_FILE)) . '/languages');
    }

    public function add_page(): void
    {
        $title = __('PMP Analytics', 'pmp-analytics');
        add_options_page($title, $title, self::CAPABILITY, self::SLUG, [$this, 'show']);
    }

    public function add_settings(): void
    {
        register_setting(self::SLUG, PMP_Config::OPTION, ['type' => 'array', 'sanitize_callback' => [$this, 'sanitize']]);
        add_settings_section('gateway', __('Connection settings', 'pmp-analytics'), '__return_null', self::SLUG);
        $fields = [
            'gateway_url' => __('Gateway URL', 'pmp-analytics'),
            'api_key' => __('API key', 'pmp-analytics'),
            'jwt_secret' => __('Shared secret', 'pmp-analytics'),
            'erasure_secret' => __('Erasure secret', 'pmp-analytics'),
        ];
        foreach ($fields as $name => $label) {
            $field = ['name' => $name, 'label_for' => "pmp-{$name}"];
            add_settings_field($name, $label, [$this, 'show_field'], self::SLUG, 'gateway', $field);
        }
        $field = ['label_for' => 'pmp-erases-with-the-mesh'];
        $label = __('When the mesh erases a person', 'pmp-analytics');
        add_settings_field('erases', $label, [$this, 'show_erases'], self::SLUG, 'gateway', $field);
        add_settings_section('visitors', __('Visitors', 'pmp-analytics'), '__return_null', self::SLUG);
        $field = ['label_for' => 'pmp-consent'];
        add_settings_field('consent', __('Consent', 'pmp-analytics'), [$this, 'show_consent'], self::SLUG, 'visitors', $field);
        add_settings_field('roles', __('Excluded roles', 'pmp-analytics'), [$this, 'show_roles'], self::SLUG, 'visitors');
    }

    /**
     * Secrets are never printed, so an empty field leaves them unchanged.
     *
     * @return array<string, mixed>
     */
    public function sanitize(mixed $input): array
    {
        $input = is_array($input) ? $input : [];
        $kept = (array) get_option(PMP_Config::OPTION, []);
        if (isset($input['gateway_url'])) {
            $kept['gateway_url'] = esc_url_raw(trim((string) $input['gateway_url']), ['http', 'https']);
        }
        foreach (['api_key', 'jwt_secret', 'erasure_secret'] as $name) {
            $value = trim((string) ($input[$name] ?? ''));
            if ($value !== '') {
                $kept[$name] = $value;
            }
        }
        if (isset($input['erases_with_the_mesh'])) {
            $kept['erases_with_the_mesh'] = rest_sanitize_boolean($input['erases_with_the_mesh']);
        }
        if (in_array($input['consent'] ?? '', ['required', 'assumed'], true)) {
            $kept['consent'] = $input['consent'];
        }
        if (is_array($input['excluded_roles'] ?? null)) {
            // The field is always sent, if only empty, so that all roles can be unchecked.
            $kept['excluded_roles'] = array_values(array_intersect(array_keys(wp_roles()->roles), $input['excluded_roles']));
        }
        return $kept;
    }

    public function show_erases(): void
    {
        $name = PMP_Config::OPTION . '[erases_with_the_mesh]';
        echo '<input type="hidden" name="' . esc_attr($name) . '" value="0">';
        printf(
            '<label><input id="pmp-erases-with-the-mesh" type="checkbox" name="%s" value="1"%s> %s</label>',
            esc_attr($name),
            checked($this->config->erases_with_the_mesh(), true, false),
            esc_html__('Also run the erasers of WordPress and WooCommerce', 'pmp-analytics'),
        );
        echo '<p class="description">';
        esc_html_e('The data of this plugin is erased in any case, if the erasure secret is set.', 'pmp-analytics');
        echo '</p>';
    }

    public function show_consent(): void
    {
        $choices = [
            'required' => __('Consent required: record visitors once they accept', 'pmp-analytics'),
            'assumed' => __('Consent assumed: record visitors until they decline, where the law permits it', 'pmp-analytics'),
        ];
        echo '<select id="pmp-consent" name="' . esc_attr(PMP_Config::OPTION) . '[consent]">';
        foreach ($choices as $choice => $label) {
            $selected = selected($this->config->requires_consent(), $choice === 'required', false);
            echo '<option value="' . esc_attr($choice) . '"' . $selected . '>' . esc_html($label) . '</option>';
        }
        echo '</select><p class="description">';
        esc_html_e('A consent tool with the WP Consent API takes precedence. Browsers that object are always respected.', 'pmp-analytics');
        echo '</p>';
    }

    public function show_roles(): void
    {
        $name = PMP_Config::OPTION . '[excluded_roles][]';
        echo '<fieldset><legend class="screen-reader-text">' . esc_html__('Excluded roles', 'pmp-analytics') . '</legend>';
        echo '<input type="hidden" name="' . esc_attr($name) . '" value="">';
        foreach (wp_roles()->get_names() as $role => $label) {
            printf(
                '<label><input type="checkbox" name="%s" value="%s"%s> %s</label><br>',
                esc_attr($name),
                esc_attr($role),
                checked(in_array($role, $this->config->excluded_roles(), true), true, false),
                esc_html(translate_user_role($label)),
            );
        }
        echo '</fieldset><p class="description">';
        esc_html_e('Users with these roles are staff: their actions are not recorded, and their orders are flagged.', 'pmp-analytics');
        echo '</p>';
    }

    /**
     * @param array{name: string} $field
     */
    public function show_field(array $field): void
    {
        $name = $field['name'];
        if ($this->config->is_fixed($name)) {
            echo '<p id="pmp-' . esc_attr($name) . '">' . esc_html__('Set in wp-config.php.', 'pmp-analytics') . '</p>';
            return;
        }
        $is_address = $name === 'gateway_url';
        printf(
            '<input class="regular-text" id="pmp-%1$s" name="%2$s[%1$s]" type="%3$s" value="%4$s" placeholder="%5$s" autocomplete="off">',
            esc_attr($name),
            esc_attr(PMP_Config::OPTION),
            $is_address ? 'url' : 'password',
            esc_attr($is_address ? $this->config->gateway_url() : ''),
            esc_attr($is_address ? 'https://' : __('unchanged', 'pmp-analytics')),
        );
    }

    public function show(): void
    {
        if (! current_user_can(self::CAPABILITY)) {
            return;
        }
        echo '<div class="wrap"><h1>' . esc_html(get_admin_page_title()) . '</h1>';
        $this->show_notice();
        $this->connection->show();
        echo '<form action="options.php" method="post">';
        settings_fields(self::SLUG);
        do_settings_sections(self::SLUG);
        submit_button();
        echo '</form>';
        $this->show_state();
        echo '</div>';
    }

    public function act(): void
    {
        if (! current_user_can(self::CAPABILITY)) {
            wp_die(esc_html__('Sorry, you are not allowed to do this.', 'pmp-analytics'), '', ['response' => 403]);
        }
        check_admin_referer(self::ACTION);
        $action = sanitize_key(wp_unslash($_POST['pmp_action'] ?? ''));
        $notice = 'requeued';
        if ($action === 'requeue') {
            $this->queue->requeue();
        } elseif ($action === 'backfill') {
            $this->backfill->start();
            $notice = 'backfill';
        }
        wp_safe_redirect(add_query_arg('pmp_notice', rawurlencode($notice), self::address()));
        exit;
    }

    private function show_notice(): void
    {
        $notice = sanitize_text_field(wp_unslash($_GET['pmp_notice'] ?? ''));
        $texts = [
            'backfill' => __('Existing orders are being imported in the background.', 'pmp-analytics'),
            'requeued' => __('Rejected messages will be sent again.', 'pmp-analytics'),
        ];
        if (isset($texts[$notice])) {
            echo '<div class="notice notice-success"><p>' . esc_html($texts[$notice]) . '</p></div>';
        }
    }

    private function show_state(): void
    {
        $state = $this->queue->state();
        $delivery = $this->pause->state();
        $rows = [
            __('Waiting', 'pmp-analytics') => number_format_i18n($state->waiting),
            __('Oldest waiting for', 'pmp-analytics') => $state->waiting > 0 ? human_time_diff(time() - (int) $state->oldest_age) : '–',
            __('Rejected', 'pmp-analytics') => number_format_i18n($state->set_aside),
            __('Last delivery', 'pmp-analytics') => $delivery['delivered_at'] > 0
                ? wp_date(get_option('date_format') . ' ' . get_option('time_format'), (int) $delivery['delivered_at'])
                : '–',
            __('Existing orders', 'pmp-analytics') => $this->backfill_state(),
            __('Last error', 'pmp-analytics') => $delivery['reason'] !== '' ? $delivery['reason'] : '–',
        ];
        echo '<h2>' . esc_html__('Outbox', 'pmp-analytics') . '</h2><table class="widefat striped"><tbody>';
        foreach ($rows as $label => $value) {
            echo '<tr><th scope="row">' . esc_html($label) . '</th><td>' . esc_html((string) $value) . '</td></tr>';
        }
        foreach ($this->queue->reasons() as $reason) {
            $message = "{$reason['kind']} {$reason['message_id']}";
            echo '<tr><th scope="row">' . esc_html($message) . '</th><td>' . esc_html($reason['reason']) . '</td></tr>';
        }
        echo '</tbody></table>';
        $this->show_button('backfill', __('Import existing orders', 'pmp-analytics'));
        $this->show_button('requeue', __('Retry rejected messages', 'pmp-analytics'));
    }

    private function backfill_state(): string
    {
        $state = $this->backfill->state();
        $reported = number_format_i18n($state['told']);
        return match (true) {
            /* translators: %s: number of orders. */
            $state['is_running'] => sprintf(__('%s imported so far', 'pmp-analytics'), $reported),
            /* translators: %s: number of orders. */
            $state['finished_at'] > 0 => sprintf(__('all imported: %s', 'pmp-analytics'), $reported),
            default => __('not imported', 'pmp-analytics'),
        };
    }

    private function show_button(string $action, string $label): void
    {
        echo '<form action="' . esc_url(admin_url('admin-post.php')) . '" method="post" style="display:inline-block;margin:1em 1em 0 0">';
        wp_nonce_field(self::ACTION);
        echo '<input type="hidden" name="action" value="' . esc_attr(self::ACTION) . '">';
        echo '<input type="hidden" name="pmp_action" value="' . esc_attr($action) . '">';
        submit_button($label, 'secondary', 'submit', false);
        echo '</form>';
    }
}
