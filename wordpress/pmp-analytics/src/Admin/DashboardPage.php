<?php

declare(strict_types=1);

namespace PMP\Analytics\Admin;

use PMP\Analytics\Hook;
use PMP\Analytics\Registerable;
use PMP\Analytics\Reports\Viewer;
use PMP\Analytics\Rest\CollectRoute;
use PMP\Analytics\Rest\ReportsRoute;
use PMP_Config;

/**
 * PMP Analytics > Dashboard: the mesh's own page, in a frame, so that its styles and those of wp-admin don't meet. The frame says
 * where the page asks for figures, and with which nonce.
 */
final class DashboardPage implements Registerable
{
    public const SLUG = 'pmp-dashboard';

    private const PAGE = 'dashboard/index.html';

    private const STYLE = 'assets/admin.css';

    /** After WooCommerce's own reports. */
    private const POSITION = '57.1';

    public function __construct(private readonly PMP_Config $config, private readonly string $plugin_file)
    {
    }

    public function register(): void
    {
        Hook::action('admin_menu', [$this, 'add_pages']);
        Hook::action('admin_enqueue_scripts', [$this, 'add_style']);
    }

    public static function address(): string
    {
        return admin_url('admin.php?page=' . self::SLUG);
    }

    public function add_pages(): void
    {
        $name = __('PMP Analytics', 'pmp-analytics');
        $title = __('Dashboard', 'pmp-analytics');
        $settings = __('Settings', 'pmp-analytics');
        add_menu_page($title, $name, Viewer::capability(), self::SLUG, [$this, 'show'], 'dashicons-chart-area', self::POSITION);
        add_submenu_page(self::SLUG, $title, $title, Viewer::capability(), self::SLUG, [$this, 'show']);
        add_submenu_page(self::SLUG, $settings, $settings, SettingsPage::CAPABILITY, 'options-general.php?page=' . SettingsPage::SLUG);
    }

    /**
     * @param string $screen Name of the page that is shown.
     */
    public function add_style(string $screen): void
    {
        if (in_array($screen, ['index.php', 'toplevel_page_' . self::SLUG], true)) {
            $version = get_file_data($this->plugin_file, ['version' => 'Version'])['version'];
            wp_enqueue_style('pmp-analytics-admin', plugins_url(self::STYLE, $this->plugin_file), [], $version);
        }
    }

    public function show(): void
    {
        echo '<h1 class="screen-reader-text">' . esc_html__('PMP Analytics', 'pmp-analytics') . '</h1><hr class="wp-header-end">';
        if (! $this->config->is_complete()) {
            echo '<div class="notice notice-info inline"><p>' . $this->unconnected() . '</p></div>';
            return;
        }
        printf(
            '<iframe class="pmp-dashboard" title="%s" src="%s" data-rest="%s" data-nonce="%s" data-language="%s"></iframe>',
            esc_attr__('Dashboard', 'pmp-analytics'),
            esc_url(plugins_url(self::PAGE, $this->plugin_file)),
            esc_url(rest_url(CollectRoute::SPACE . ReportsRoute::PATH)),
            esc_attr(wp_create_nonce('wp_rest')),
            esc_attr((string) strtok(get_user_locale(), '_')),
        );
    }

    /**
     * @return string HTML.
     */
    private function unconnected(): string
    {
        $text = esc_html__('This shop is not connected to a mesh yet.', 'pmp-analytics');
        if (! current_user_can(SettingsPage::CAPABILITY)) {
            return $text;
        }
        $link = '<a href="' . esc_url(SettingsPage::address()) . '">' . esc_html__('Connect it', 'pmp-analytics') . '</a>';
        return "{$text} {$link}";
    }
}
